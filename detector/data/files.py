"""Names in lists and annotations -> the files they mean.

A name may be in another Unicode form than its file (macOS decomposes letters, lists mostly compose them), may lack the
suffix or write it in another case, may hold blanks and dots, and may lead into sub-folders.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from detector.data.ground_truth import composed
from detector.data.listing import IMAGE_SUFFIXES


class Files:
    """The files below a folder, by name without suffix; each folder is listed once, when a name first leads there.

    Args:
        root: Folder where names start; it need not exist.
        suffixes: File suffixes in lower case, the most frequent one first.
    """

    def __init__(self, root: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> None:
        self.root, self.suffixes = root, tuple(suffixes)
        self._listed: dict[Path, dict[str, Path]] = {}

    def find(self, name: str) -> Path | None:
        """Return the file of a name with or without suffix; None where there is none."""
        for own in (name, name.replace("\\", "/")):  # Windows writes sub-folders so
            folder, _, last = own.rpartition("/")
            found = self._in(self.root / folder).get(composed(last))
            if found is None and folder and not os.path.isdir(self.root / folder):
                found = self._in(self._folder(folder)).get(composed(last))
            if found is not None:
                return found
        return None

    def _in(self, folder: Path) -> dict[str, Path]:
        """Return a folder's files by their names with and without suffix; of equal ones the first when sorted."""
        if folder not in self._listed:
            names: dict[str, Path] = {}
            files = sorted(folder.iterdir(), reverse=True) if os.path.isdir(folder) else []
            files = [file for file in files if file.suffix.lower() in self.suffixes]
            for file in files:
                names[composed(file.stem)] = file
            for file in files:
                names.setdefault(composed(file.name), file)
            self._listed[folder] = names
        return self._listed[folder]

    def _folder(self, name: str) -> Path:
        """Return the sub-folder whose name is in another Unicode form."""
        folder = self.root
        for part in name.split("/"):
            entries = folder.iterdir() if os.path.isdir(folder) else ()
            inside = (one for one in entries if composed(one.name) == composed(part))
            folder = next(inside, folder / part)
        return folder
