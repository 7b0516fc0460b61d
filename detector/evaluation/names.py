"""Look up the images and classes that a file of detections names.

In: a text or a number from the file.  Out: an index of the truth's images, or a label. An exact match wins; otherwise
numbers are compared by their digits and texts in Unicode's composed form (NFC), which file systems change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import VOC_NAMES, composed
from detector.evaluation.results import ResultsError, class_keys
from detector.evaluation.truth import Truth

UNKNOWN = -1
UNLISTED = -2
"""Index of an image that the ground truth has and the image list leaves out."""

Name = int | float | str
"""A name in JSON: 2, 2.0 and "2" are the same."""

NUMBER = re.compile(r"0*(\d{1,1000})(?:\.0*)?", re.ASCII)


class Names:
    """Finds the images and classes of a truth by every name that a file may use."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._images = (truth.whole or truth).index_of_any_name
        self.classes = dict(zip(class_keys(truth.classes), range(len(truth.classes)), strict=True))
        self.classes |= truth.classes.label_of
        both = [*VOC_NAMES.items(), *((voc, coco) for coco, voc in VOC_NAMES.items())]
        self._other_names = {other: self.classes[name] for name, other in both if name in self.classes}

    def images(self, names: Sequence[Name]) -> NDArray[np.int64]:
        """Find the index of each image, as `image` does."""
        index = {name: self.image(name) for name in set(names)}
        return np.fromiter(map(index.__getitem__, names), np.int64, len(names))

    def labels(self, names: Sequence[Name], *, number: bool) -> NDArray[np.int64]:
        """Find the label of each class, as `label` does."""
        label = {name: self.label(name, number=number) for name in set(names)}
        return np.fromiter(map(label.__getitem__, names), np.int64, len(names))

    def image(self, name: Name) -> int:
        """Find an image by its id, number, file name with or without ending, or the end of its path.

        Returns:
            The index; UNKNOWN where no image or several match, UNLISTED where the image list leaves it out.
        """
        text = as_text(name)
        index = self._images.get(text, UNKNOWN)
        if index == UNKNOWN:
            index = self._loosely.get(_loose(text), UNKNOWN)
        if index != UNKNOWN and self._truth.whole is not None:
            index = self._truth.index_of.get(self._truth.whole.image_ids[index], UNLISTED)
        return index

    def images_at(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Find the index of each image, as `image` does, by its path on any machine: the longest end of it that fits.

        Args:
            paths: Names, with folders or without.
        """
        return np.array([self._image_at(path) for path in paths], np.int64)

    def _image_at(self, path: str) -> int:
        parts = path.replace("\\", "/").split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((index for end in (path, *ends) if (index := self.image(end)) != UNKNOWN), UNKNOWN)

    def label(self, name: Name, *, number: bool) -> int:
        """Find a class by its name, its name in COCO or PASCAL VOC, its WordNet id or its number.

        Args:
            name: The name.
            number: Whether a text of digits is first looked up as the class's number, then as its name.

        Returns:
            The label; UNKNOWN where no class matches.
        """
        labels: list[int | None] = []
        if isinstance(name, str):
            plain = composed(name).strip()
            labels.append(self.classes.get(name, self.classes.get(plain, self._other_names.get(plain))))
        if self._truth.numbered and (digits := NUMBER.fullmatch(as_text(name))):
            labels.append(self._truth.classes.label_of_id.get(int(digits[1])))
        known = [label for label in labels if label is not None]
        return known[-1 if number else 0] if known else UNKNOWN

    @cached_property
    def _loosely(self) -> dict[str, int]:
        names = list(self._images.items())
        for index, path in enumerate((self._truth.whole or self._truth).paths):
            for text in {path.as_posix(), path.as_posix().removesuffix(path.suffix)}:
                parts = text.split("/")
                names += [("/".join(parts[start:]), index) for start in range(len(parts) - 1)]
        found: dict[str, set[int]] = {}
        for name, index in names:
            found.setdefault(_loose(name), set()).add(index)
        return {name: indices.pop() for name, indices in found.items() if len(indices) == 1}


def labels_of_groups(groups: Mapping[str, Sequence[str]], truth: Truth) -> dict[str, list[int]]:
    """Find the labels of the classes that the setting `groups` lists by name or WordNet id.

    Raises:
        ResultsError: the truth does not have a class, or two of its classes share the name.
    """
    names = Names(truth)
    labels = {group: names.labels(classes, number=False).tolist() for group, classes in groups.items()}
    for group, classes in groups.items():
        unknown = {name for name, label in zip(classes, labels[group], strict=True) if label == UNKNOWN}
        if unknown:
            raise ResultsError(f"groups.{group}: {truth.name} has no class {', '.join(sorted(unknown))}")
    return labels


def as_text(name: Name) -> str:
    """Return a name as text; a whole number becomes its digits."""
    if isinstance(name, float):
        return str(int(name)) if name.is_integer() else str(name)
    return str(name)


def _loose(text: str) -> str:
    digits = NUMBER.fullmatch(text.strip())
    return digits[1] if digits else composed(text).strip().replace("\\", "/")
