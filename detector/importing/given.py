"""Proposals as a file states them, before it is known what their four numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.names import Name
from detector.evaluation.truth import Convention
from proposals.errors import UserError


class ProposalFileError(UserError):
    """A file of proposals that cannot be imported; the message names it, the fault and the next step."""


@dataclass(frozen=True)
class Given:
    """The N boxes of a file's I images.

    Attributes:
        path: The file, or the folder of a file per image.
        names: I names of images.
        starts: [I + 1] int64: the boxes of image i are rows starts[i] to starts[i + 1].
        boxes: [N, 4] float64, as written.
        scores: [N] float64; None where the file has none.
        columns: Order of the four numbers where the format fixes it, see layout.COLUMNS; None where it does not.
        convention: Pixel convention where the format fixes it, else None.
    """

    path: Path
    names: tuple[Name, ...]
    starts: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64] | None
    columns: str | None = None
    convention: Convention | None = None

    @classmethod
    def of_images(
        cls,
        path: Path,
        names: Sequence[Name],
        boxes: Sequence[Any],
        scores: Sequence[Any] | None,
        columns: str | None = None,
        convention: Convention | None = None,
    ) -> Given:
        """Join the arrays of several images.

        Args:
            path: The file, or the folder of a file per image.
            names: I names of images.
            boxes: I arrays [n, 4].
            scores: I arrays of n scores; None where there are none.
            columns: As in the class.
            convention: As in the class.

        Raises:
            ProposalFileError: an image's boxes are not [n, 4] numbers, or its scores not n numbers; numbers that are
                not finite; two images of one name; no images.
        """
        if not names:
            raise ProposalFileError(f"{path}: holds no images")
        seen: set[str] = set()
        for text in map(str, names):
            if text in seen:
                raise ProposalFileError(f"{path}: image {text!r} occurs twice")
            seen.add(text)
        rows = [_numbers(path, name, "boxes", part) for name, part in zip(names, boxes, strict=True)]
        for place, (name, part) in enumerate(zip(names, rows, strict=True)):
            if part.size == 0:
                rows[place] = np.zeros((0, 4))
            elif part.ndim != 2 or part.shape[1] != 4:
                raise ProposalFileError(f"{path}: boxes of image {name!r} must be [N, 4], not {list(part.shape)}")
        columns_of_scores = None
        if scores is not None:
            columns_of_scores = [
                _numbers(path, name, "scores", part).reshape(-1) for name, part in zip(names, scores, strict=True)
            ]
            for name, part, row in zip(names, columns_of_scores, rows, strict=True):
                if len(part) != len(row):
                    raise ProposalFileError(f"{path}: image {name!r} has {len(row)} boxes and {len(part)} scores")
        return cls(
            path,
            tuple(names),
            np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int64),
            np.concatenate(rows),
            None if columns_of_scores is None else np.concatenate(columns_of_scores),
            columns,
            convention,
        )


def grouped(
    path: Path,
    names: Sequence[Name],
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64] | None,
    columns: str | None = None,
    convention: Convention | None = None,
) -> Given:
    """Group rows by image; images and the rows of each keep their order.

    Args:
        path: The file.
        names: N names of images, one a row.
        boxes: [N, 4], as written.
        scores: [N], or None.
        columns: As in Given.
        convention: As in Given.

    Raises:
        ProposalFileError: as Given.of_images.
    """
    place: dict[str, int] = {}
    first: list[Name] = []
    of_row = np.zeros(len(names), np.int64)
    for row, name in enumerate(names):
        position = place.setdefault(str(name), len(place))
        of_row[row] = position
        if position == len(first):
            first.append(name)
    order = np.argsort(of_row, kind="stable")
    ends = np.cumsum(np.bincount(of_row, minlength=len(first)))[:-1]
    parts = np.split(boxes[order], ends) if first else []
    of_scores = None if scores is None else np.split(scores[order], ends) if first else []
    return Given.of_images(path, first, parts, of_scores, columns, convention)


def _numbers(path: Path, name: object, what: str, value: Any) -> NDArray[np.float64]:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ProposalFileError(f"{path}: {what} of image {name!r} are not numbers ({error})") from error
    if not np.isfinite(array).all():
        raise ProposalFileError(f"{path}: {what} of image {name!r} must be finite numbers")
    return array
