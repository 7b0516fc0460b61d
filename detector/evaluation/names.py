"""What the names and numbers in a file of detections mean: an image or a class of a Truth.

In: a text or a number as a file has it.  Out: a position in the truth's images, or a label. An exact match goes first;
else a number counts as its digits and a text is compared in Unicode's composed form (NFC), which file systems change.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.results import ResultsError, class_keys
from detector.evaluation.truth import Truth

UNKNOWN = -1
UNLISTED = -2
"""Of an image that the ground truth has and the image list leaves out."""

Name = int | float | str
"""As JSON has them: 2, 2.0 and "2" are the same."""

NUMBER = re.compile(r"0*(\d{1,1000})(?:\.0*)?", re.ASCII)


class Names:
    """The images and classes of a truth by every name that a file may give them."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._images = (truth.whole or truth).index_of_any_name
        self.classes = dict(zip(class_keys(truth.classes), range(len(truth.classes)), strict=True))
        self.classes |= truth.classes.label_of

    def images(self, names: Sequence[Name]) -> NDArray[np.int64]:
        """Position of each image, see `image`; each name is looked up once."""
        place = {name: self.image(name) for name in set(names)}
        return np.array([place[name] for name in names], np.int64)

    def labels(self, names: Sequence[Name], *, number: bool) -> NDArray[np.int64]:
        """Label of each class, see `label`; each name is looked up once."""
        label = {name: self.label(name, number=number) for name in set(names)}
        return np.array([label[name] for name in names], np.int64)

    def image(self, name: Name) -> int:
        """Position of the image that has this id, number, file name with or without ending, or end of a path.

        UNKNOWN where there is none or several, UNLISTED where the image list leaves it out.
        """
        text = as_text(name)
        place = self._images.get(text, UNKNOWN)
        if place == UNKNOWN:
            place = self._loosely.get(_loose(text), UNKNOWN)
        if place != UNKNOWN and self._truth.whole is not None:
            place = self._truth.index_of.get(self._truth.whole.image_ids[place], UNLISTED)
        return place

    def label(self, name: Name, *, number: bool) -> int:
        """Label of the class that has this name, WordNet id or number; UNKNOWN where there is none.

        Args:
            name: of the class.
            number: a text of digits is the class's number sooner than its name.
        """
        labels = [self._label_of_name(name), self._label_of_number(name)]
        known = [label for label in (reversed(labels) if number else labels) if label != UNKNOWN]
        return known[0] if known else UNKNOWN

    def _label_of_name(self, name: Name) -> int:
        if not isinstance(name, str):
            return UNKNOWN
        return self.classes.get(name, self._composed_classes.get(_composed(name), UNKNOWN))

    def _label_of_number(self, name: Name) -> int:
        digits = NUMBER.fullmatch(as_text(name)) if self._truth.numbered else None
        return self._truth.classes.label_of_id.get(int(digits[1]), UNKNOWN) if digits else UNKNOWN

    @cached_property
    def _composed_classes(self) -> dict[str, int]:
        return _unique((_composed(name), label) for name, label in self.classes.items())

    @cached_property
    def _loosely(self) -> dict[str, int]:
        names = list(self._images.items())
        for index, path in enumerate((self._truth.whole or self._truth).paths):
            for text in {path.as_posix(), path.as_posix().removesuffix(path.suffix)}:
                parts = text.split("/")
                names += [("/".join(parts[start:]), index) for start in range(len(parts) - 1)]
        return _unique((_loose(name), index) for name, index in names)


def labels_of(classes: Sequence[str], truth: Truth, where: str) -> list[int]:
    """Labels of classes that a setting names, by name or WordNet id.

    Args:
        classes: their names.
        truth: whose classes they are.
        where: the setting, to name in the message.

    Raises:
        ResultsError: a class that the truth does not have, or a name that two of its classes share.
    """
    names = Names(truth)
    labels = [names.label(name, number=False) for name in classes]
    unknown = sorted({name for name, label in zip(classes, labels, strict=True) if label == UNKNOWN})
    if unknown:
        raise ResultsError(f"{where}: {truth.name} has no class {', '.join(unknown)}")
    return labels


def as_text(name: Name) -> str:
    """The text of a name: of a whole number its digits."""
    if isinstance(name, float):
        return str(int(name)) if name.is_integer() else str(name)
    return str(name)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _loose(text: str) -> str:
    digits = NUMBER.fullmatch(text.strip())
    return digits[1] if digits else _composed(text).replace("\\", "/")


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The pairs whose text has one number."""
    found: dict[str, set[int]] = {}
    for text, number in pairs:
        found.setdefault(text, set()).add(number)
    return {text: numbers.pop() for text, numbers in found.items() if len(numbers) == 1}
