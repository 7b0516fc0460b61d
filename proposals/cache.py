"""Proposals kept on disk, keyed by what they depend on: the image file's bytes and the settings.

One small file an image, in a folder per setting; a changed image or setting is another key, so nothing stale is read.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proposals.search import Ranked
from proposals.sources import ProposalConfig, propose

VERSION = 1
"""Part of every key; raised when the code proposes other boxes for the same image and settings."""


@dataclass(frozen=True)
class ProposalCache:
    """A folder of proposals of one setting.

    Attributes:
        root: folder that holds the caches of all settings.
        config: the setting.
    """

    root: Path
    config: ProposalConfig

    @property
    def folder(self) -> Path:
        """Where the files of this setting are."""
        settings = json.dumps({"version": VERSION, **asdict(self.config)}, sort_keys=True)
        return self.root / hashlib.sha256(settings.encode()).hexdigest()[:16]

    def get(self, content: bytes, decode: Callable[[bytes], NDArray[np.uint8]]) -> Ranked:
        """The proposals of an image file, from the cache or computed and stored.

        Args:
            content: the file's bytes.
            decode: turns them into [H, W, 3] uint8 RGB; called only where the cache has nothing.
        """
        path = self.folder / f"{hashlib.sha256(content).hexdigest()[:32]}.npy"
        rows = _read(path)
        if rows is None:
            ranked = propose(decode(content), self.config)
            rows = np.column_stack([ranked.boxes, ranked.scores]).astype(np.float32)
            _write(path, rows)
        return Ranked(rows[:, :4], rows[:, 4])


def _read(path: Path) -> NDArray[np.float32] | None:
    """[N, 5] x1 y1 x2 y2 score, or None where the file is absent or torn."""
    try:
        rows: NDArray[np.float32] = np.load(path)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return rows if rows.ndim == 2 and rows.shape[1] == 5 else None


def _write(path: Path, rows: NDArray[np.float32]) -> None:
    """The file appears whole or not at all, whoever else writes it at the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, rows)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
