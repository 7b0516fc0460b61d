"""Which files in a folder of results are detect's own, unchanged since: the rest is never replaced.

Pictures have a comment in them. A label file has no place for a mark, and one that somebody corrected is not ours any
more. The folder therefore has a journal, .detect.jsonl: a line for each file that was written, with the SHA-256 of its
content and its image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import PIL.Image

from proposals.errors import UserError
from proposals.files import write_whole

JOURNAL = ".detect.jsonl"
MARK = b"drawn by googlenet-rcnn detect"
"""The comment in each picture that detect writes."""
PICTURES = re.compile(r".*(_detections|_\d+|_\d{6,}\.\d{3})\.jpg")


class OutputError(UserError):
    """Results cannot be written where they were wanted; the message names the file."""


class Written:
    """The journal of a folder.

    Args:
        folder: The folder, which need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._images: dict[tuple[str, str], str] = {}
        self._names: dict[str, set[str]] = {}  # of the files of an image
        try:
            lines = (folder / JOURNAL).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                one: Any = json.loads(line)
                self._remember(one["file"], one["sha256"], one["image"])
            except (ValueError, KeyError, TypeError):  # a line that was cut, or is no detect's
                continue

    def check(self, name: str, image: str) -> None:
        """Check that a file does not exist, or was written for this image and is unchanged.

        Args:
            name: The file below the folder.
            image: The real path of the image; empty for a file of the whole run.

        Raises:
            OutputError: Otherwise.
        """
        path = self.folder / name
        if not os.path.lexists(path):
            return
        before = self._images.get((name, _digest(path))) if path.is_file() else None
        if before is None:
            raise OutputError(
                f"{path}: exists, and detect did not write it or it was changed since; choose another --output"
            )
        if before != image:
            raise OutputError(f"{path}: holds the results of {before}, not of {image}; choose another --output")

    def write(self, name: str, content: bytes, image: str) -> None:
        """Write a file, whole or not at all; one that has this content already is left alone.

        Raises:
            OutputError: As `check`.
            OSError: It cannot be written.
        """
        self.check(name, image)
        path, digest = self.folder / name, hashlib.sha256(content).hexdigest()
        if path.is_file() and _digest(path) == digest:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._images.get((name, digest)) != image:  # before the file: a killed run leaves none that nobody wrote
            self._remember(name, digest, image)
            line = json.dumps({"file": name, "sha256": digest, "image": image}) + "\n"
            with (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
                journal.write(line)
        with write_whole(path, flush=not image) as part:
            part.write_bytes(content)

    def remove_others(self, ours: set[str], image: str, pattern: str) -> None:
        """Remove the files of an image that an earlier run left: those that are unchanged and not among `ours`.

        Args:
            ours: Names of the files to keep.
            image: The real path of the image.
            pattern: Regular expression of the names of files to look at.
        """
        for name in self._names.get(image, set()) - ours:
            path = self.folder / name
            if re.fullmatch(pattern, name) and path.is_file() and self._images.get((name, _digest(path))) == image:
                path.unlink()

    def _remember(self, name: str, digest: str, image: str) -> None:
        self._images[name, digest] = image
        self._names.setdefault(image, set()).add(name)


def is_result(path: Path) -> bool:
    """Return whether a file is a picture that detect wrote: an annotated image, a crop or a frame of a video."""
    if not PICTURES.fullmatch(path.name):
        return False
    try:
        with PIL.Image.open(path, formats=["JPEG"]) as image:
            return bool(image.info.get("comment") == MARK)
    except Exception:  # whatever makes it unreadable, no detect wrote it so
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
