"""Scores of boxes kept on disk: each classifier scores each box of an image once, whoever asks.

In: an image, boxes from any number of proposal settings, a function that scores them.  Out: RegionScores.
Rows of a table share boxes and classifiers, so a long table costs little more than its most expensive row.
"""

from __future__ import annotations

import time
import zipfile
import zlib
from collections.abc import Callable
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
"""Scores boxes [N, 4] px."""


_UNREADABLE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


class ScoreStore:
    """The scores that one classifier gave to boxes.

    Args:
        folder: Folder that belongs to this classifier and way of scoring alone. It holds a file per image, named by the
            SHA-256 of the image's content: boxes [U, 4] float32, probabilities [U, K + 1] float32, with box regression
            offsets [U, K, 4] float32, and the seconds that scoring them took.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def scores(self, content: bytes, boxes: Boxes, score: Score | None = None) -> RegionScores:
        """The scores of an image's boxes; those that are missing are computed and kept.

        Args:
            content: Bytes of the image's file.
            boxes: [N, 4] px.
            score: Scores boxes of this image; None where all must be there.

        Raises:
            UserError: some are missing, and score is None.
        """
        path = self._path(content)
        known, found, seconds = self._read(path)
        wanted = _keys(boxes)
        rows = _find(_keys(known), wanted)
        if found is None or (rows < 0).any():
            if score is None:
                raise UserError(
                    f"{path} lacks the scores of {(rows < 0).sum()} of {len(boxes)} boxes; the same command adds them"
                )
            missing = np.unique(wanted[rows < 0]).view(np.float32).reshape(-1, 4)
            started = time.perf_counter()
            new = score(missing)
            seconds += time.perf_counter() - started
            known, found = np.concatenate([known, missing]), joined([found, new]) if found else new
            self._write(path, known, found, seconds)
            rows = _find(_keys(known), wanted)
        return found[rows]

    def seconds_per_box(self, content: bytes) -> float:
        """Mean seconds of warp and network for a box of this image; 0 where none was scored."""
        known, _, seconds = self._read(self._path(content))
        return seconds / max(len(known), 1)

    def _path(self, content: bytes) -> Path:
        return self.folder / f"{digest(content)[:32]}.npz"

    def _read(self, path: Path) -> tuple[NDArray[np.float32], RegionScores | None, float]:
        try:
            with np.load(path) as file:
                scores = RegionScores(file["probabilities"], file.get("offsets"))
                return file["boxes"], scores, float(file["seconds"])
        except _UNREADABLE:  # absent or damaged: its boxes are scored again
            return np.zeros((0, 4), np.float32), None, 0.0

    def _write(self, path: Path, boxes: NDArray[np.float32], scores: RegionScores, seconds: float) -> None:
        arrays: dict[str, Any] = {"boxes": boxes, "probabilities": scores.probabilities, "seconds": seconds}
        if scores.offsets is not None:
            arrays["offsets"] = scores.offsets
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)


def joined(parts: list[RegionScores]) -> RegionScores:
    """The scores of several sets of regions, one after the other."""
    offsets = [part.offsets for part in parts if part.offsets is not None]
    return RegionScores(
        np.concatenate([part.probabilities for part in parts]), np.concatenate(offsets) if offsets else None
    )


def _keys(boxes: Boxes) -> NDArray[np.void]:
    """[N, 4] -> [N], the bits of each row as one value."""
    rows = np.ascontiguousarray(boxes, np.float32) + np.float32(0)  # -0 is 0
    keys: NDArray[np.void] = rows.view(np.dtype((np.void, 16))).reshape(-1)
    return keys


def _find(known: NDArray[np.void], wanted: NDArray[np.void]) -> NDArray[np.int64]:
    """Position in known of each wanted key, -1 where it is not there."""
    where = {key.tobytes(): row for row, key in enumerate(known)}
    return np.array([where.get(key.tobytes(), -1) for key in wanted], np.int64)
