"""Proposals kept on disk, keyed by what they depend on: the image file's bytes and the settings.

One small file an image, in a folder per setting; a changed image or setting is another key, so nothing stale is ever read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proposals.selective_search import Ranked
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
        try:
            rows = np.load(path)
        except (FileNotFoundError, ValueError, EOFError):  # absent, or torn by a full disk: compute it again
            ranked = propose(decode(content), self.config)
            rows = np.column_stack([ranked.boxes, ranked.scores]).astype(np.float32)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            with temporary.open("wb") as file:
                np.save(file, rows)
            temporary.replace(path)
        return Ranked(rows[:, :4], rows[:, 4])
