"""What the detector returns for an image: boxes, scores and labels, best first. Needs NumPy only, so it loads fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHOWN = 5  # detections that the text of a Detections names


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """D detections in one image, best first. Equal where all numbers are; the arrays are copies that nobody can change.

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
            array = np.asarray(getattr(self, name), dtype=kind).reshape(shape)
            if array.flags.writeable:  # a part of other detections is not
                array = array.copy()
                array.flags.writeable = False
            object.__setattr__(self, name, array)
        if not len(self.boxes) == len(self.scores) == len(self.labels):
            raise ValueError(f"{len(self.boxes)} boxes, {len(self.scores)} scores, {len(self.labels)} labels")
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("a box or a score is not finite")

    @classmethod
    def empty(cls) -> Detections:
        """No detections."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        return (
            np.array_equal(self.labels, other.labels)
            and np.array_equal(self.scores, other.scores)
            and np.array_equal(self.boxes, other.boxes)
        )

    def __hash__(self) -> int:
        return hash(tuple((array + 0).tobytes() for array in (self.boxes, self.scores, self.labels)))  # -0 is 0

    def __repr__(self) -> str:
        shown = [
            f"(label {label}, score {score:.3g}, box {' '.join(f'{corner:g}' for corner in box)})"
            for label, score, box in zip(self.labels[:SHOWN], self.scores, self.boxes, strict=False)
        ]
        more = f", and {len(self) - SHOWN} more" if len(self) > SHOWN else ""
        return f"<{len(self)} detections{': ' if shown else ''}{', '.join(shown)}{more}>"

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: slice | NDArray[Any]) -> Detections:
        """A part of them: a slice, a mask or positions."""
        return Detections(self.boxes[index], self.scores[index], self.labels[index])
