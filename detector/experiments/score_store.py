"""Class probabilities of boxes, kept on disk: each classifier scores each box of an image once, whoever asks.

In: an image, boxes from any number of proposal settings, a function that scores.  Out: [N, K + 1] rows.
Proposal sets overlap and ensembles share members, so that a table of many rows costs little more than its dearest.
"""

from __future__ import annotations

import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proposals.boxes import Boxes
from proposals.errors import UserError
from proposals.files import write_whole
from proposals.store import digest

Score = Callable[[Boxes], NDArray[np.float32]]
"""[N, 4] px -> [N, K + 1] probabilities, column 0 background."""


_UNREADABLE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


class ScoreStore:
    """What one classifier thinks of boxes.

    Args:
        folder: of this classifier and way of scoring alone. A file an image, named by the SHA-256 of its content:
            boxes [U, 4] float32, probabilities [U, K + 1] float32, seconds that all of them took.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, content: bytes, boxes: Boxes, score: Score | None = None) -> NDArray[np.float32]:
        """[N, K + 1] probabilities of an image's boxes; those that are not there are scored and kept. [0, 1] of none.

        Args:
            content: of the image's file.
            boxes: [N, 4] px.
            score: scores boxes of this image; None where all must be there.

        Raises:
            ValueError: some are not there, and score is None.
        """
        path = self._path(content)
        known, probabilities, seconds = self._read(path)
        wanted = _keys(boxes)
        places = _find(_keys(known), wanted)
        if (places < 0).any():
            if score is None:
                raise UserError(
                    f"{path} lacks the scores of {(places < 0).sum()} of {len(boxes)} boxes; the same command adds them"
                )
            new = np.unique(wanted[places < 0]).view(np.float32).reshape(-1, 4)
            started = time.perf_counter()
            rows = score(new)
            seconds += time.perf_counter() - started
            known = np.concatenate([known, new])
            probabilities = np.concatenate([probabilities.reshape(-1, rows.shape[1]), rows])
            self._write(path, known, probabilities, seconds)
            places = _find(_keys(known), wanted)
        result: NDArray[np.float32] = probabilities[places]
        return result

    def seconds_per_box(self, content: bytes) -> float:
        """Of an image's boxes, warp and network; 0 where none was scored."""
        known, _, seconds = self._read(self._path(content))
        return seconds / max(len(known), 1)

    def _path(self, content: bytes) -> Path:
        return self.folder / f"{digest(content)[:32]}.npz"

    def _read(self, path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        try:
            with np.load(path) as file:
                return file["boxes"], file["probabilities"], float(file["seconds"])
        except _UNREADABLE:  # absent or damaged: its boxes are scored again
            return np.zeros((0, 4), np.float32), np.zeros((0, 1), np.float32), 0.0

    def _write(
        self, path: Path, boxes: NDArray[np.float32], probabilities: NDArray[np.float32], seconds: float
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, boxes=boxes, probabilities=probabilities, seconds=seconds)


def _keys(boxes: Boxes) -> NDArray[np.void]:
    """[N, 4] -> [N], each row's bits as one value."""
    rows = np.ascontiguousarray(boxes, np.float32) + np.float32(0)  # -0 is 0
    keys: NDArray[np.void] = rows.view(np.dtype((np.void, 16))).reshape(-1)
    return keys


def _find(known: NDArray[np.void], wanted: NDArray[np.void]) -> NDArray[np.int64]:
    """Position in known of each wanted key, -1 where it is not there."""
    where = {key.tobytes(): place for place, key in enumerate(known)}
    return np.array([where.get(key.tobytes(), -1) for key in wanted], np.int64)
