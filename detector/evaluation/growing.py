"""Rows of a table that grows: one structured array, copied to a larger one when it is full."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from detector.evaluation.given import Rows


class Growing:
    """Rows in an array that grows by a half when it is full."""

    def __init__(self, kind: np.dtype[Any]) -> None:
        self._array = np.zeros(0, kind)
        self._count = 0

    @property
    def rows(self) -> Rows:
        """The rows, a view."""
        return self._array[: self._count]

    @property
    def nbytes(self) -> int:
        """Bytes of the array, with the room that it has left."""
        return self._array.nbytes

    def append(self, rows: Rows) -> None:
        """Add rows at the end."""
        end = self._count + len(rows)
        if end > len(self._array):
            array = np.zeros(max(end, len(self._array) * 3 // 2), self._array.dtype)
            array[: self._count] = self.rows
            self._array = array
        self._array[self._count : end] = rows
        self._count = end


def rows_by_image(rows: Rows, images: int) -> list[bytes]:
    """Return the content of each image's rows, in their order, without the image's index."""
    rows = rows[np.argsort(rows["image"], kind="stable")]
    bounds = np.searchsorted(rows["image"], np.arange(images + 1)).tolist()
    rows["image"] = 0
    return [rows[start:end].tobytes() for start, end in pairwise(bounds)]
