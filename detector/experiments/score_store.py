"""Scores of boxes on disk: each classifier scores each box of an image once.

In: an image, boxes from any number of proposal settings, a function that scores them.  Out: RegionScores.
Rows of a table share boxes and classifiers, so a long table costs little more than its most expensive row.
"""

from __future__ import annotations

import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.scores import RegionScores
from proposals.boxes import Boxes
from proposals.errors import UserError
from proposals.files import write_whole
from proposals.store import digest

Score = Callable[[Boxes], RegionScores]
"""A function that scores boxes [N, 4] px."""

UNREADABLE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


class ScoreStore:
    """The scores that one classifier gave to boxes.

    Args:
        folder: Folder of the scores of one classifier and one way of scoring. It holds a file per image, named by the
            SHA-256 of the image's content: boxes [U, 4] float32, probabilities [U, K + 1] float32, with box regression
            offsets [U, K, 4] float32, and the seconds of scoring them.
        half: Keep probabilities in float16.
    """

    def __init__(self, folder: Path, *, half: bool = False) -> None:
        self.folder = folder
        self._type = np.float16 if half else np.float32

    def scores(self, content: bytes, boxes: Boxes, score: Score | None = None) -> RegionScores:
        """Return the scores of an image's boxes; missing ones are computed and stored.

        Args:
            content: Bytes of the image's file.
            boxes: [N, 4] px.
            score: Function that scores boxes of this image; None where no score may be missing.

        Raises:
            UserError: a score is missing, and score is None.
        """
        path = self._path(content)
        known, found, seconds = self._read(path)
        row_of = {key: row for row, key in enumerate(_keys(known))}
        wanted = _keys(boxes)
        missing = _missing(known, wanted)
        if found is None or missing:
            if score is None:
                lacking = sum(key not in row_of for key in wanted)
                raise UserError(
                    f"{path} lacks the scores of {lacking} of {len(boxes)} boxes; the same command adds them"
                )
            new_boxes = _boxes(missing)
            started = time.perf_counter()
            new = self._rounded(score(new_boxes))
            seconds += time.perf_counter() - started
            row_of |= {key: row for row, key in enumerate(missing, len(known))}
            known, found = np.concatenate([known, new_boxes]), RegionScores.joined([found, new]) if found else new
            self._write(path, known, found, seconds)
        return found[np.array([row_of[key] for key in wanted], np.int64)]

    def missing(self, content: bytes, boxes: Boxes) -> NDArray[np.float32]:
        """Return those of an image's boxes that have no scores yet, each once: what `scores` will ask for, [M, 4]."""
        return _boxes(_missing(self._read(self._path(content))[0], _keys(boxes)))

    def add(self, content: bytes, boxes: Boxes, scores: RegionScores) -> None:
        """Store the scores of an image's boxes [N, 4] that have none yet."""
        row_of = {key: row for row, key in enumerate(_keys(boxes))}
        self.scores(content, boxes, lambda new: scores[np.array([row_of[key] for key in _keys(new)], np.int64)])

    def seconds_per_box(self, content: bytes) -> float:
        """Return the mean seconds of warp and network for a box of this image; 0 where none was scored."""
        known, _, seconds = self._read(self._path(content))
        return seconds / max(len(known), 1)

    def _path(self, content: bytes) -> Path:
        return self.folder / f"{digest(content)[:32]}.npz"

    def _read(self, path: Path) -> tuple[NDArray[np.float32], RegionScores | None, float]:
        try:
            with np.load(path) as file:
                probabilities = file["probabilities"].astype(np.float32)
                return file["boxes"], RegionScores(probabilities, file.get("offsets")), float(file["seconds"])
        except UNREADABLE:  # absent or damaged: its boxes are scored again
            return np.zeros((0, 4), np.float32), None, 0.0

    def _rounded(self, scores: RegionScores) -> RegionScores:
        """Return the scores as they will be read again."""
        return RegionScores(scores.probabilities.astype(self._type).astype(np.float32), scores.offsets)

    def _write(self, path: Path, boxes: NDArray[np.float32], scores: RegionScores, seconds: float) -> None:
        probabilities = scores.probabilities.astype(self._type)
        arrays: dict[str, Any] = {"boxes": boxes, "probabilities": probabilities, "seconds": seconds}
        if scores.offsets is not None:
            arrays["offsets"] = scores.offsets
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)


def _missing(known: Boxes, wanted: Sequence[bytes]) -> list[bytes]:
    return sorted({*wanted}.difference(_keys(known)))


def _boxes(keys: Sequence[bytes]) -> NDArray[np.float32]:
    return np.frombuffer(b"".join(keys), np.float32).reshape(-1, 4)


def _keys(boxes: Boxes) -> list[bytes]:
    """Return the bytes of each of N boxes [N, 4] in float32."""
    rows = np.ascontiguousarray(boxes, np.float32) + np.float32(0)  # -0 is 0
    return [row.tobytes() for row in rows]
