"""What the folders of a data set say: its parts (splits), and which images and labels belong together.

In: files below a root.  Out: the same files by part, the image of a label file, ids for results.

    train/images/a.jpg  train/labels/a.txt      images/train/a.jpg  labels/train/a.txt      train/a.jpg  train/a.txt
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from detector.data.files import Files
from detector.data.ground_truth import DataError, composed, listed
from detector.data.listing import walk

IMAGE_FOLDERS = ("images", "JPEGImages", "image", "imgs", "img")
LABEL_FOLDERS = ("labels", "Annotations", "annotation", "label", "xmls", "xml", "json", "jsons")
"""Names of folders of images and of labels, in any case, where the two kinds lie apart."""

PART = re.compile(r"(train|val|test)(?:ing|id|idation)?(?![a-z])\w*|trainval\w*|minival\w*", re.IGNORECASE | re.ASCII)


def is_part(name: str) -> bool:
    """Whether a folder or list of this name is a part of a data set: train, valid, test-dev, val2017.

    >>> [name for name in ("train", "valid", "val2017", "trains", "cats", "testing_1") if is_part(name)]
    ['train', 'valid', 'val2017', 'testing_1']
    """
    return PART.fullmatch(name.replace("-", "_")) is not None


def common_name(part: str) -> str:
    """Return the name by which a part is asked for: train, val or test for what tools call training, valid, testing.

    >>> [common_name(part) for part in ("valid", "Training", "test", "val2017")]
    ['val', 'train', 'test', 'val2017']
    """
    found = re.fullmatch(r"(train|val|test)(ing|id|idation)?", part, re.IGNORECASE)
    return found[1].lower() if found else part


def part_named(split: str, parts: Collection[str]) -> str | None:
    """Return the part that a split's name means: the one of that name, else the one of the same common name."""
    if split in parts:
        return split
    alike = [part for part in parts if common_name(part) == common_name(split)]
    return alike[0] if len(alike) == 1 else None


def no_part(split: str, where: Path, parts: Collection[str]) -> DataError:
    """Return the error for a split that a data set does not have; it lists those that there are."""
    if parts:
        return DataError(f"no split {split!r} in {where}; there are: {', '.join(parts)}; set data.split=NAME")
    return DataError(
        f"no split {split!r} in {where}, which has no folders train, val or test; leave data.split empty to take "
        "all of it, or name its images in a text file:  data.image_list=FILE"
    )


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the sorted files with these suffixes (lower case) in a folder and its sub-folders, without hidden ones.

    There are none in a folder that does not exist.

    Raises:
        DataError: a folder cannot be listed: its files would be missing unnoticed.
    """
    if not folder.is_dir():
        return []
    problems: list[str] = []
    found = [path for path in walk(folder, True, problems) if path.suffix.lower() in suffixes]
    if problems:
        raise DataError(problems[0])
    return sorted(found)


def part_of(path: Path, root: Path) -> str:
    """Return the part to which a file belongs by its folders; empty where they name none.

    A part is the first folder below the root, or the second where the first holds images or labels: train/a.jpg,
    train/images/a.jpg, images/train/a.jpg.
    """
    folders = path.relative_to(root).parts[:-1]
    if len(folders) > 1 and _among(folders[0], (*IMAGE_FOLDERS, *LABEL_FOLDERS)):
        folders = folders[1:]
    return folders[0] if folders and is_part(folders[0]) else ""


def in_part(paths: Sequence[Path], root: Path, split: str) -> list[Path]:
    """Return the files of a part; of any folder that a split names, too, where it is at the place of a part.

    Args:
        paths: Files below the root.
        root: Folder of the data set.
        split: Name of the part; empty for all files.

    Raises:
        DataError: no file is in such a part.
    """
    if not split:
        return list(paths)
    folders = dict.fromkeys(part for path in paths if (part := part_of(path, root)))
    named = part_named(split, folders)
    if named is not None:
        return [path for path in paths if part_of(path, root) == named]
    wanted = Path(split).parts
    chosen = []
    for path in paths:
        own = path.relative_to(root).parts[:-1]
        if wanted in (own[: len(wanted)], own[1 : 1 + len(wanted)]):
            chosen.append(path)
    if not chosen:
        raise no_part(split, root, folders)
    return chosen


class Counterparts:
    """Finds the file that belongs to another one: the image of a label file, or the other way round.

    Args:
        root: Folder of the data set.
        suffixes: Suffixes of the wanted files, in lower case.
        given: Names of the folders in which the given files lie, apart from the wanted ones.
        wanted: Names of the folders in which the wanted files lie then.
    """

    def __init__(self, root: Path, suffixes: Collection[str], given: Sequence[str], wanted: Sequence[str]) -> None:
        self.root, self.suffixes, self.given, self.wanted = root, suffixes, given, wanted
        self._files: dict[Path, Files] = {}
        self._folders: dict[Path, list[Path]] = {}

    def find(self, path: Path) -> Path | None:
        """Return the file of the same stem in the folder that is the other one of its pair, else beside `path`."""
        for folder in self.folders(path.parent):
            files = self._files.setdefault(folder, Files(folder, self.suffixes))
            found = files.find(path.stem)
            if found is not None and composed(found.stem) == composed(path.stem):
                return found
        return None

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders in which the files of a folder may have their others, the likeliest first."""
        if folder not in self._folders:
            self._folders[folder] = [*dict.fromkeys(self._others(folder)), folder]
        return self._folders[folder]

    def _others(self, folder: Path) -> Iterator[Path]:
        """Yield the folders in which a part of the path is the other name of its pair, or is left out."""
        parts = folder.relative_to(self.root).parts if folder.is_relative_to(self.root) else folder.parts[1:]
        top = Path(*folder.parts[: len(folder.parts) - len(parts)])
        for place in reversed(range(len(parts))):
            if _among(parts[place], self.given):
                above = top.joinpath(*parts[:place])
                for name in _named(above, self.wanted):
                    for rest in (parts[place + 1 :], ()):
                        if os.path.isdir(above.joinpath(name, *rest)):
                            yield above.joinpath(name, *rest)
                yield above.joinpath(*parts[place + 1 :])
        for name in _named(top.joinpath(*parts), self.wanted):  # labels beside a folder of images
            yield top.joinpath(*parts, name)


def ids_of(paths: Sequence[Path]) -> list[str]:
    """Return a name for each image: its path without suffix below the folder that all of them share.

    Raises:
        DataError: two images of one folder differ in the suffix alone, and labels name images without it.
    """
    if not paths:
        return []
    shared = os.path.commonpath([path.parent for path in paths])
    ids = [composed(path.relative_to(shared).with_suffix("").as_posix()) for path in paths]
    twice = next((name for name, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        alike = [path for path, name in zip(paths, ids, strict=True) if name == twice]
        raise DataError(
            f"{alike[0]} and {alike[1].name} would share one label file; rename one of them, or remove a copy"
        )
    return ids


def in_order(parts: Collection[str]) -> list[str]:
    """Return names of parts in the order of their use: train, val and test first, then the others as they come.

    >>> in_order(["test", "test200", "train", "val"])
    ['train', 'val', 'test', 'test200']
    """
    first = ["train", "val", "test"]
    return sorted(parts, key=lambda part: first.index(common_name(part)) if common_name(part) in first else 3)


def summary(parts: Collection[str]) -> str:
    """Return the names of parts for a sentence.

    >>> summary(["train", "val", "test"])
    'splits train, val and test'
    """
    names = in_order(parts)
    if len(names) > 6:
        return f"splits {listed(names, 5)}"
    return f"split {names[0]}" if len(names) == 1 else f"splits {', '.join(names[:-1])} and {names[-1]}"


def _among(name: str, names: Sequence[str]) -> bool:
    return name.lower() in {one.lower() for one in names}


def _named(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the sub-folders of these names, in any case, in the order of the names."""
    if not os.path.isdir(folder):
        return []
    found = {entry.name.lower(): entry.name for entry in folder.iterdir() if entry.is_dir()}
    return [found[name.lower()] for name in names if name.lower() in found]
