"""Which images a YOLO data set has, by part, and the names of its classes.

    ROOT/data.yaml     yolo_yaml.py
    ROOT/train.txt     without data.yaml: a text file of images
    ROOT/images/train  or train/images, or train: without either, folders (trees.py)
    classes.txt        without data.yaml: the names, one a line; obj.names and _darknet.labels are the same

Paths in data.yaml are taken as their tools mean them: relative to `path`, which is relative to the file; without the
"../" that Roboflow writes; and by their end where the data set was moved from another machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from detector.data.ground_truth import DataError, Repairs, composed, read_lines
from detector.data.listing import IMAGE_SUFFIXES
from detector.data.trees import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    Counterparts,
    files_below,
    in_part,
    is_part,
    no_part,
    part_named,
    part_of,
)
from detector.data.yolo_yaml import YoloSettings, read_settings

NAMES = ("classes.txt", "obj.names", "_darknet.labels", "classes.names")
MOVED = "paths in data.yaml or a list were found by their end, as the data set was moved"


@dataclass
class YoloTree:
    """The files of a YOLO data set.

    Args:
        root: Its folder.
    """

    root: Path
    repairs: Repairs = field(default_factory=Repairs)

    def __post_init__(self) -> None:
        self.labels = Counterparts(self.root, (".txt",), IMAGE_FOLDERS, LABEL_FOLDERS)

    @cached_property
    def settings(self) -> YoloSettings | None:
        """The content of data.yaml; None where there is no such file."""
        return read_settings(self.root)

    @cached_property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """Parts that text files in the root list; empty with data.yaml."""
        if self.settings is not None:
            return {}
        files = sorted(path for path in self.root.glob("*.txt") if is_part(path.stem) and lists_images(path))
        return {path.stem: (path.name,) for path in files}

    @cached_property
    def parts(self) -> list[str]:
        """Names of the parts that files or folders state; empty where the data set has none."""
        if self.settings is not None and self.settings.parts:
            return list(self.settings.parts)
        return list(self.lists) or sorted({part for path in self.labelled if (part := part_of(path, self.root))})

    @cached_property
    def labelled(self) -> list[Path]:
        """All images in folders that have label files for some of their images."""
        images = files_below(self.root, IMAGE_SUFFIXES)
        folders = {path.parent for path in images if self.labels.find(path)}
        left_out = [path for path in images if path.parent not in folders]
        if folders and left_out:
            self.repairs.note(
                "images lie in folders without label files and were left out", left_out[0].name, len(left_out)
            )
        return [path for path in images if path.parent in folders]

    def images(self, split: str) -> list[Path]:
        """Return the images of a part, or of all parts where the name is empty.

        Raises:
            DataError: there is no such part, or a path of it leads nowhere; most images of a list are not there.
        """
        stated = self.settings.parts if self.settings else {}
        base = self.settings.base if self.settings else self.root
        stated = stated or self.lists
        if not stated:
            return in_part(self.labelled, self.root, split)
        chosen = list(stated) if not split else [part_named(split, stated) or ""]
        if chosen == [""]:
            raise no_part(split, self.settings.path if self.settings else self.root, stated)
        found: dict[Path, None] = {}
        for part in chosen:
            for text in stated[part]:
                found |= dict.fromkeys(self._images_at(text, base, part))
        return list(found)

    def names(self, stated: Sequence[str]) -> tuple[str, ...]:
        """Return the names of classes 0, 1, ...; empty where no file names them.

        Args:
            stated: The setting data.classes, which goes before the files.

        Raises:
            DataError: data.yaml and the setting have different numbers of names, or two files of names differ.
        """
        own = self.settings.names if self.settings else ()
        if stated:
            count = len(own) or (self.settings.count if self.settings else 0)
            if self.settings and count and len(stated) != count:
                raise DataError(
                    f"data.classes has {len(stated)} names and {self.settings.path} {count}; in a YOLO data set they "
                    "are the names of classes 0, 1, ... (to choose some of them in a training: classes=[...])"
                )
            return tuple(stated)
        return own or self._named_in_files()

    def _named_in_files(self) -> tuple[str, ...]:
        files = [path for path in files_below(self.root, {Path(name).suffix for name in NAMES}) if path.name in NAMES]
        known = {path: _name_lines(path) for path in files}
        first = next(iter(known), None)
        for path, names in known.items():
            if first is not None and names != known[first]:
                raise DataError(
                    f"{first} and {path} name other classes; remove the wrong one, or set data.classes=[...] in the "
                    "order of the class numbers"
                )
        names = known[first] if first is not None else ()
        if self.settings and self.settings.count not in (0, len(names)) and names:
            raise DataError(
                f"{first} has {len(names)} names, and {self.settings.path} states nc: {self.settings.count}"
            )
        return names

    def _images_at(self, text: str, base: Path, part: str) -> list[Path]:
        """Return the images that one path of a part names."""
        place = self._located(text, base)
        if place is None:
            owner = self.settings.path if self.settings else self.root
            raise DataError(f"{owner}: {part}: no folder or list {text!r}, looked for from {base}; fix the path")
        if os.path.isdir(place):
            found = files_below(place, IMAGE_SUFFIXES)
            if not found:
                raise DataError(f"{place}: no images in this folder, which is {part} of the data set")
            return found
        if place.suffix.lower() in IMAGE_SUFFIXES:
            return [place]
        lines = [line for line in read_lines(place) if line]
        if not lines:
            raise DataError(f"{place}: no images in this list")
        located = {line: self._located(line, place.parent if line.startswith("./") else base) for line in lines}
        absent = [line for line, path in located.items() if path is None]
        if 2 * len(absent) > len(located):
            raise DataError(
                f"{place}: {len(absent):,} of {len(located):,} images are not there (first: {absent[0]}); YOLO's boxes "
                "are shares of an image whose size only its file states: export the images too"
            )
        self.repairs.note("images of a list are not there and were left out", absent[0] if absent else "", len(absent))
        return [path for path in located.values() if path is not None]

    def _located(self, text: str, base: Path) -> Path | None:
        """Find the file or folder that a path means."""
        written = text.strip().replace("\\", "/")
        relative = written.split("../")[-1].removeprefix("./")
        outside = [Path(written).expanduser()] if Path(written).expanduser().is_absolute() else [base / written]
        for path in (base / relative, self.root / relative, *outside):  # first inside: a neighbour may be named alike
            if os.path.exists(path):
                return path
        parts = PurePosixPath(relative).parts
        for start in range(1, len(parts)):
            tail = parts[start:]
            if len(tail) > 1 or tail[0].lower() not in IMAGE_FOLDERS:
                path = self.root.joinpath(*tail)
                if os.path.exists(path):
                    self.repairs.note(MOVED, text)
                    return path
        return None


def lists_images(path: Path) -> bool:
    """Whether a text file begins with the path of an image."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            first = next((line.strip() for line in file if line.strip()), "")
    except OSError:
        return False
    return PurePosixPath(first.replace("\\", "/")).suffix.lower() in IMAGE_SUFFIXES


def _name_lines(path: Path) -> tuple[str, ...]:
    """Return the class names of a text file; a line's number is the class's."""
    names = read_lines(path)
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise DataError(f"{path}, line {names.index('') + 1}: no name; the number of a line is that of its class")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{path}: names {twice!r} twice")
    return tuple(map(composed, names))
