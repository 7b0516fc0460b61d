"""Names of PASCAL VOC's result files, comp4_det_SPLIT_CLASS.txt: split and class -> file, files -> classes.

SPLIT and CLASS may contain underscores, so the name of one file can be ambiguous; the files of a folder share their
SPLIT. Characters that are forbidden in file names on some systems are written as in URLs, "/" as %2F.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from detector.data.ground_truth import composed, listed
from detector.evaluation.checking import LISTED, hint_at
from detector.evaluation.results import ResultsError, class_keys
from detector.evaluation.truth import Truth

FORBIDDEN = re.compile(r'[\x00-\x1f/\\<>:"|?*]|%(?=[0-9a-fA-F]{2})')


def prefix_of(split: str) -> str:
    """Return the beginning of every file name of a split, up to the class."""
    return f"comp4_det_{quoted(split)}_"


def split_of(truth: Truth) -> str:
    """Return the split's name for file names: the last word of the truth's name."""
    return (truth.name.split() or ["images"])[-1]


def quoted(name: str) -> str:
    """Write forbidden characters of a name as %XX; different names stay different.

    >>> quoted("cat/dog")
    'cat%2Fdog'
    """
    return FORBIDDEN.sub(lambda found: f"%{ord(found[0]):02X}", name)


def labels_of_files(files: Sequence[Path], classes: Mapping[str, int], truth: Truth) -> dict[Path, int]:
    """Find the class of each file, the part of its name after the beginning that all files share.

    Where several beginnings are possible, the one that write_voc writes wins, else the shortest, which leaves the
    longest class names.

    Args:
        files: The files of one folder.
        classes: Labels, keyed by class name.
        truth: The ground truth that has these classes.

    Raises:
        ResultsError: a file's name does not end with a class, or two files have the same class.
    """
    forms = {composed(name): label for name, label in classes.items()}
    forms |= {composed(quoted(name)): label for name, label in classes.items()}
    readings = {file: _readings(composed(file.stem), forms) for file in files}
    votes = Counter(prefix for found in readings.values() for prefix in found)
    own = prefix_of(split_of(truth))
    prefix = max(votes, key=lambda text: (votes[text], text == own, -len(text)), default=own)
    labels: dict[Path, int] = {}
    file_of: dict[int, Path] = {}
    for file, found in readings.items():
        if prefix not in found:
            begins = composed(file.stem).startswith(prefix)
            name = file.stem.removeprefix(prefix) if begins else file.stem.rpartition("_")[2]
            after = f" after {prefix!r}" if votes else ""
            raise ResultsError(
                f"{file}: its name does not end with a class of {truth.name}{after}.{hint_at(name, list(classes))} "
                f"Known: {listed(list(classes), LISTED)}"
            )
        label = found[prefix]
        if label in file_of:
            name = class_keys(truth.classes)[label]
            raise ResultsError(f"{file}: class {name!r} has the file {file_of[label].name} already")
        labels[file] = label
        file_of[label] = file
    return labels


def _readings(stem: str, forms: Mapping[str, int]) -> dict[str, int]:
    """Return the possible beginnings of a file's name, each with the label of the class after it."""
    return {stem.removesuffix(form): label for form, label in forms.items() if stem.endswith(f"_{form}")}
