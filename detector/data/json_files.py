"""JSON files of a data set: which kind they are, and of COCO's the part and the folder of images.

Files are not decoded beyond what tells this.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec

from detector.data.files import Files
from detector.data.trees import is_part, part_of

NONE = msgspec.Raw(b"")
FIRST = 5
"""Images of a COCO file that are looked for in the folders."""


class _Keys(msgspec.Struct, gc=False):
    """The keys by which JSON files are told apart; their values are not decoded."""

    images: msgspec.Raw = NONE
    annotations: msgspec.Raw = NONE
    categories: msgspec.Raw = NONE
    shapes: msgspec.Raw = NONE
    imagePath: msgspec.Raw = NONE


def kind_of_json(path: Path) -> str:
    """Return coco or labelme; empty for other JSON and for files that cannot be read."""
    try:
        keys = msgspec.json.decode(path.read_bytes(), type=_Keys)
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError):
        return ""
    if all(map(bytes, (keys.images, keys.annotations, keys.categories))):
        return "coco"
    return "labelme" if bytes(keys.shapes) and bytes(keys.imagePath) else ""


def split_of(path: Path, root: Path) -> str:
    """Return the part that a COCO file is named after, or the folder in which it lies."""
    official = path.stem.removeprefix("instances_")
    if official != path.stem and is_part(official):
        return official
    return next((word for word in re.split(r"[_\-. ]", path.stem) if is_part(word)), "") or part_of(path, root)


def images_of(path: Path, split: str, root: Path) -> str:
    """Return the folder of a COCO file's images, relative to the root: where most of the first ones are."""
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=_Rows).images[:FIRST]
    except (msgspec.MsgspecError, ValueError):
        rows = []
    names = [str(row.file_name) for row in rows]
    own, above = path.parent, path.parent.parent
    places = [own, own / "images", root / split, root / "images" / split, root / "images", root, root / "JPEGImages"]
    places += [root / "images" / "default", above / split, above]
    counts = []
    for place in places:
        files = Files(place)
        counts.append(sum(os.path.isfile(place / name) or files.find(name) is not None for name in names))
    best = places[counts.index(max(counts))] if any(counts) else root / (split if (root / split).is_dir() else "images")
    return best.relative_to(root).as_posix() if best.is_relative_to(root) else ""


class _Image(msgspec.Struct, gc=False):
    file_name: Any = ""


class _Rows(msgspec.Struct, gc=False):
    images: list[_Image]
