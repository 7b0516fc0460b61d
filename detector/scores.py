"""Scores of regions: class probabilities and, with box regression, the offsets of each class's box.

Every stage from the networks to suppression exchanges this one form: members of an ensemble return it, their mean is
one, the cascade joins two, and the ablation keeps it on disk.

N regions, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.regions.offsets import apply_offsets
from proposals.boxes import Boxes

Rows = slice | NDArray[np.integer] | NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RegionScores:
    """Scores of N regions, background in column 0.

    Attributes:
        probabilities: [N, K + 1] float32 softmax; column 0 is background.
        offsets: [N, K, 4] float32 box offsets dx, dy, dw, dh of each class (R-CNN, appendix C); None without box
            regression.

    Raises:
        ValueError: The shapes do not fit together, or a number is not finite.
    """

    probabilities: NDArray[np.float32]
    offsets: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        shape = self.probabilities.shape
        if len(shape) != 2 or shape[1] < 2:
            raise ValueError(f"probabilities must be [N, K + 1] with at least one class, not {list(shape)}")
        if self.offsets is not None and self.offsets.shape != (shape[0], shape[1] - 1, 4):
            raise ValueError(
                f"offsets must be [N, K, 4] = {[shape[0], shape[1] - 1, 4]}, not {list(self.offsets.shape)}"
            )
        for name in ("probabilities", "offsets"):
            array = getattr(self, name)
            if array is not None and not np.isfinite(array).all():
                raise ValueError(f"a number of the {name} is not finite")

    @classmethod
    def empty(cls, classes: int, *, offsets: bool) -> RegionScores:
        """Return the scores of no region."""
        return cls.background(0, classes, offsets=offsets)

    @classmethod
    def background(cls, count: int, classes: int, *, offsets: bool) -> RegionScores:
        """Return the scores of regions that are certain to be background."""
        probabilities = np.zeros((count, classes + 1), np.float32)
        probabilities[:, 0] = 1
        return cls(probabilities, np.zeros((count, classes, 4), np.float32) if offsets else None)

    @staticmethod
    def mean(parts: Sequence[RegionScores], weights: Sequence[int] | None = None) -> RegionScores:
        """Average the scores that the members of an ensemble give to the same regions.

        Args:
            parts: At least one, all with offsets or all without.
            weights: Number of networks that each part is the mean of; by default 1.
        """
        shares = np.array(weights or [1] * len(parts), np.float32)
        shares /= shares.sum()
        offsets = [part.offsets for part in parts if part.offsets is not None]
        if offsets and len(offsets) < len(parts):
            raise ValueError("some parts have box offsets and others have none")
        probabilities = np.tensordot(shares, [part.probabilities for part in parts], 1)
        return RegionScores(probabilities, np.tensordot(shares, offsets, 1) if offsets else None)

    @staticmethod
    def joined(parts: Sequence[RegionScores]) -> RegionScores:
        """Return the scores of several sets of regions, at least one, one set after the other."""
        offsets = [part.offsets for part in parts if part.offsets is not None]
        probabilities = np.concatenate([part.probabilities for part in parts])
        return RegionScores(probabilities, np.concatenate(offsets) if offsets else None)

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return int(self.probabilities.shape[1]) - 1

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, rows: Rows) -> RegionScores:
        """Select regions by a slice, a mask or positions."""
        return RegionScores(self.probabilities[rows], None if self.offsets is None else self.offsets[rows])

    def updated(self, rows: Rows, scores: RegionScores) -> RegionScores:
        """Return a copy in which the regions `rows` have other scores."""
        probabilities = self.probabilities.copy()
        probabilities[rows] = scores.probabilities
        offsets = self.offsets
        if offsets is not None and scores.offsets is not None:
            offsets = offsets.copy()
            offsets[rows] = scores.offsets
        return RegionScores(probabilities, offsets)

    def mirrored(self) -> RegionScores:
        """Convert the scores of a mirrored image's regions to those of the regions themselves: dx changes its sign."""
        flip = np.array([-1, 1, 1, 1], np.float32)
        return RegionScores(self.probabilities, None if self.offsets is None else self.offsets * flip)

    def boxes(self, proposals: Boxes, width: float, height: float) -> Boxes:
        """Compute the box of each class in each region.

        Args:
            proposals: [N, 4] px.
            width: Width of the image, px.
            height: Height of the image, px.

        Returns:
            [N, K, 4] float64 px: the proposals moved by the offsets and clipped to the image. Without offsets it is a
            read-only view of the proposals, the same for every class.
        """
        if self.offsets is None:
            shape = (len(self), self.probabilities.shape[1] - 1, 4)
            return np.broadcast_to(proposals.astype(np.float64)[:, None], shape)
        return apply_offsets(proposals, self.offsets, width, height)
