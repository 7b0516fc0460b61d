"""Names of PASCAL VOC's result files, comp4_det_SPLIT_CLASS.txt: split and class -> file, files -> classes.

SPLIT and CLASS may hold underscores, so that one file alone can be read in several ways; the files of a folder share
their SPLIT. Characters that a file's name cannot hold on every system are written as %2F, as in URLs.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from detector.evaluation.checking import hint_at, listing
from detector.evaluation.results import ResultsError, class_keys
from detector.evaluation.truth import Truth

FORBIDDEN = re.compile(r'[\x00-\x1f/\\<>:"|?*]|%(?=[0-9a-fA-F]{2})')


def prefix_of(split: str) -> str:
    """What stands before the class."""
    return f"comp4_det_{quoted(split)}_"


def split_of(truth: Truth) -> str:
    """The split as a file's name has it: the last word of the truth's name."""
    return (truth.name.split() or ["images"])[-1]


def quoted(name: str) -> str:
    """The name with forbidden characters as %XX; names that differ stay different.

    >>> quoted("cat/dog")
    'cat%2Fdog'
    """
    return FORBIDDEN.sub(lambda found: f"%{ord(found[0]):02X}", name)


def labels_of_files(files: Sequence[Path], classes: Mapping[str, int], truth: Truth) -> dict[Path, int]:
    """The class of each file: what follows the beginning that all of them share.

    Where several beginnings are possible it is the one that write_voc gives, else the shortest, so that the longest
    name of a class wins.

    Args:
        files: the files of one folder.
        classes: labels by name.
        truth: whose classes they are.

    Raises:
        ResultsError: no class ends a file's name, or two files are of one class.
    """
    forms = {_composed(name): label for name, label in classes.items()}
    forms |= {_composed(quoted(name)): label for name, label in classes.items()}
    readings = {file: _readings(_composed(file.stem), forms) for file in files}
    votes = Counter(prefix for found in readings.values() for prefix in found)
    own = prefix_of(split_of(truth))
    prefix = max(votes, key=lambda text: (votes[text], text == own, -len(text)), default=own)
    labels: dict[Path, int] = {}
    file_of: dict[int, Path] = {}
    for file, found in readings.items():
        if prefix not in found:
            begins = _composed(file.stem).startswith(prefix)
            name = file.stem.removeprefix(prefix) if begins else file.stem.rpartition("_")[2]
            after = f" after {prefix!r}" if votes else ""
            hint = hint_at(name, list(classes))
            raise ResultsError(
                f"{file}: no class of {truth.name} ends its name{after}.{hint} Known: {listing(list(classes))}"
            )
        label = found[prefix]
        if label in file_of:
            name = class_keys(truth.classes)[label]
            raise ResultsError(f"{file}: is of class {name!r}, and so is {file_of[label].name}")
        labels[file] = label
        file_of[label] = file
    return labels


def _readings(stem: str, forms: Mapping[str, int]) -> dict[str, int]:
    """Beginnings of a file's name, each with the label of the class that follows."""
    return {stem.removesuffix(form): label for form, label in forms.items() if stem.endswith(f"_{form}")}


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
