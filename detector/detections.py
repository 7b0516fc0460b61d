"""What the detector returns for an image: boxes, scores and labels, best first. Needs NumPy only, so it loads fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detections:
    """D detections in one image, best first.

    Attributes:
        boxes: [D, 4] float64, px, far edge exclusive.
        scores: [D] float64, finite.
        labels: [D] int64, 0..K-1 in the class table that belongs to them.

    Raises:
        ValueError: lengths differ, or a number is not finite.

    >>> found = Detections(np.array([[0.0, 0.0, 8.0, 9.0]]), np.array([0.7]), np.array([2]))
    >>> len(found), len(found[found.scores > 0.9])
    (1, 0)
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, kind, shape in (
            ("boxes", np.float64, (-1, 4)),
            ("scores", np.float64, (-1,)),
            ("labels", np.int64, (-1,)),
        ):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind).reshape(shape))
        if not len(self.boxes) == len(self.scores) == len(self.labels):
            raise ValueError(f"{len(self.boxes)} boxes, {len(self.scores)} scores, {len(self.labels)} labels")
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("a box or a score is not finite")

    @classmethod
    def empty(cls) -> Detections:
        """No detections."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: slice | NDArray[Any]) -> Detections:
        """A part of them: a slice, a mask or positions."""
        return Detections(self.boxes[index], self.scores[index], self.labels[index])
