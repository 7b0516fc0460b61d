"""What the four numbers of a box mean: their order, the first pixel, and whether the far edge belongs to the box.

In: boxes as written, the size of each box's image, objects.  Out: a Layout and its reason, or one line.
A wrong order lets boxes leave their image or end before they begin, and covers fewer objects. The convention shows
where boxes touch the borders: from pixel 0 or 1, to the width, or one short of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.truth import HALF_OPEN, Convention, convert
from detector.importing.given import Given, ProposalFileError
from proposals.boxes import from_xywh
from proposals.recall import best_overlaps

COLUMNS = {"xyxy": "x1 y1 x2 y2", "yxyx": "y1 x1 y2 x2", "xywh": "x y width height"}
"""Orders of the four numbers."""

BEYOND = 1  # px by which a box of the right order may leave its image: the conventions differ by that
STRAY = 0.01  # greatest share of boxes that leave their image, or end before they begin, under the right order
MOST = 0.5  # greatest share of them where the format states the order, and no order fits: methods may not cut boxes
TOUCHING = 0.001  # share of boxes that the borders are read from, so that a few strays decide nothing
OBJECTS = 1_000  # objects that decide between two orders
ERRORS = 4.0  # standard errors by which the mean best overlap of the right order must be better

Boxes = NDArray[np.float64]


class Layout(NamedTuple):
    """What a box's numbers mean.

    Attributes:
        columns: Key of COLUMNS.
        convention: Pixel convention of the corners.
    """

    columns: str
    convention: Convention

    def __str__(self) -> str:
        edge = (
            "" if self.columns == "xywh" else f", far edge {'inclusive' if self.convention.inclusive else 'exclusive'}"
        )
        return f"{COLUMNS[self.columns]} from pixel {self.convention.first}{edge}"

    def half_open(self, boxes: Boxes) -> Boxes:
        """Convert boxes [N, 4] as written to x1, y1, x2, y2 px from 0, far edge exclusive."""
        return np.asarray(convert(corners(boxes, self.columns), self.convention, HALF_OPEN), np.float64)


class Wanted(NamedTuple):
    """What the user states about a file; None leaves it to the file's format and to its boxes.

    Attributes:
        columns: Key of COLUMNS.
        first: First pixel, 0 or 1.
        inclusive: 1 where the far edge belongs to the box, else 0.
    """

    columns: str | None = None
    first: int | None = None
    inclusive: int | None = None


def corners(boxes: Boxes, columns: str) -> Boxes:
    """Return x1, y1, x2, y2 of boxes [N, 4] as written, in their own pixel convention."""
    if columns == "xywh":
        return np.asarray(from_xywh(boxes), np.float64)
    return boxes[:, [1, 0, 3, 2]] if columns == "yxyx" else boxes


def find_layout(given: Given, sizes: NDArray[np.float64], objects: list[Boxes], wanted: Wanted) -> tuple[Layout, str]:
    """Find out what the numbers of a file's boxes mean.

    Args:
        given: The file's boxes.
        sizes: [I, 2] width and height of its images, px; NaN where unknown.
        objects: Objects of each image, [M, 4] px from 0, far edge exclusive.
        wanted: What the user states.

    Returns:
        The layout, and how it is known, for a message.

    Raises:
        ProposalFileError: the boxes contradict the file's format or the user; or they fit several layouts.
    """
    of_row = np.repeat(sizes, np.diff(given.starts), axis=0)
    boxes = given.boxes
    if len(boxes) and boxes.max() <= 1:
        raise ProposalFileError(f"{given.path}: no number of a box is above 1; write pixels, not shares of the image")
    columns, why = _columns(given, of_row, objects, wanted.columns)
    convention, how = _convention(given, columns, of_row, wanted)
    return Layout(columns, convention), why if why == how else f"order {why}, pixels {how}"


def _columns(given: Given, sizes: NDArray[np.float64], objects: list[Boxes], wanted: str | None) -> tuple[str, str]:
    stated = wanted or given.columns
    strays = {columns: float(_strays(given.boxes, columns, sizes).mean()) if len(sizes) else 0.0 for columns in COLUMNS}
    fitting = [columns for columns in COLUMNS if strays[columns] <= STRAY]
    if stated and fitting and stated not in fitting:
        better = min(fitting, key=strays.__getitem__)
        raise ProposalFileError(
            f"{given.path}: read as {COLUMNS[stated]}, {strays[stated]:.0%} of the boxes leave their image or end "
            f"before they begin, and {strays[better]:.0%} as {COLUMNS[better]}; give --columns {better}"
        )
    if wanted:
        return wanted, "as you state"
    if not fitting:
        if stated and strays[stated] <= MOST:
            return stated, "of this format"
        least = min(strays, key=strays.__getitem__)
        raise ProposalFileError(
            f"{given.path}: {strays[least]:.0%} of the boxes leave their image or end before they begin even as "
            f"{COLUMNS[least]}, the best of all orders; see whether they belong to these images in their own size, "
            "then give --columns"
        )
    if len(fitting) == 1:
        return fitting[0], "of this format" if stated else "found by the images' borders"
    best = _best_on_objects(given, fitting, objects)
    if stated and best in (None, stated):
        return stated, "of this format"
    if best is None:
        like = " and ".join(COLUMNS[columns] for columns in fitting)
        raise ProposalFileError(f"{given.path}: the boxes fit as {like}; give --columns {' or '.join(fitting)}")
    if stated:
        raise ProposalFileError(
            f"{given.path}: the boxes cover the objects clearly better as {COLUMNS[best]} than as {COLUMNS[stated]}, "
            f"which this format has; give --columns {best}, or --columns {stated} if you are sure"
        )
    return best, "found by the objects"


def _strays(boxes: Boxes, columns: str, sizes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which boxes, [N], leave their image or end before they begin; False where the size is unknown."""
    found = corners(boxes, columns)
    inverted = (found[:, 2:] < found[:, :2]).any(axis=1)
    outside = (found[:, :2] < -BEYOND).any(axis=1) | (found[:, 2:] > sizes + BEYOND).any(axis=1)
    return np.asarray(inverted | outside)


def _best_on_objects(given: Given, fitting: list[str], objects: list[Boxes]) -> str | None:
    """Return the order that covers the objects better than each other one, by paired differences; None where none."""
    overlaps: dict[str, list[NDArray[np.float64]]] = {columns: [] for columns in fitting}
    count = 0
    for image, own in enumerate(objects):
        if count >= OBJECTS:
            break
        rows = given.boxes[given.starts[image] : given.starts[image + 1]]
        if len(own) and len(rows):
            count += len(own)
            for columns, found in overlaps.items():
                found.append(best_overlaps(own, corners(rows, columns)))
    if not count:
        return None
    joined = {columns: np.concatenate(found) for columns, found in overlaps.items()}
    best: str = max(fitting, key=lambda columns: float(joined[columns].mean()))
    for columns in fitting:
        difference = joined[best] - joined[columns]
        if columns != best and not difference.mean() > ERRORS * difference.std() / np.sqrt(count):
            return None
    return best


def _convention(given: Given, columns: str, sizes: NDArray[np.float64], wanted: Wanted) -> tuple[Convention, str]:
    stated = given.convention
    inclusive = 0 if columns == "xywh" else wanted.inclusive
    if wanted.first is not None and inclusive is not None:
        return Convention(wanted.first, inclusive), "as you state"
    found = corners(given.boxes, columns)
    known = ~_strays(given.boxes, columns, sizes) & np.isfinite(sizes).all(axis=1)
    low, high = _touched(found[known], sizes[known])
    possible = [
        Convention(first, far)
        for first in ((0, 1) if wanted.first is None else (wanted.first,))
        for far in ((0, 1) if inclusive is None else (inclusive,))
    ]
    fitting = [one for one in possible if (low, high) == (one.first, one.first - one.inclusive)]
    if stated in possible:
        if fitting and stated not in fitting:
            raise ProposalFileError(
                f"{given.path}: boxes of this format are {Layout(columns, stated)}, and these look like "
                f"{Layout(columns, fitting[0])}; give {_options(columns, fitting[0])}, or {_options(columns, stated)} "
                "if you are sure"
            )
        return stated, "of this format"
    if not fitting:  # boxes that do not touch all borders may still rule out all but one
        fitting = [one for one in possible if low >= one.first and high <= one.first - one.inclusive]
    if len(fitting) == 1:
        return fitting[0], "found by the images' borders"
    needed = "--first-pixel" if inclusive is not None else "--far-edge" if wanted.first is not None else ""
    raise ProposalFileError(
        f"{given.path}: boxes begin at {low} px and end at the width or height {high:+d} px, which does not tell "
        f"the first pixel and the far edge; give {needed or '--first-pixel and --far-edge'}"
    )


def _options(columns: str, convention: Convention) -> str:
    edge = "" if columns == "xywh" else f" --far-edge {'inclusive' if convention.inclusive else 'exclusive'}"
    return f"--first-pixel {convention.first}{edge}"


def _touched(found: Boxes, sizes: NDArray[np.float64]) -> tuple[int, int]:
    """Return the pixel at which boxes begin, and how far beyond the width or height they end, px."""
    if not len(found):
        return 0, 0
    low = np.quantile(found[:, :2].min(axis=1), TOUCHING, method="inverted_cdf")
    high = np.quantile((found[:, 2:] - sizes).max(axis=1), 1 - TOUCHING, method="inverted_cdf")
    return round(float(low)), round(float(high))
