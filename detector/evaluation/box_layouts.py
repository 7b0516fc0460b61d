"""The layout of boxes in files that do not state it: found by looking at the numbers, or given by an option.

    xyxy      x1, y1, x2, y2               xywh    x1, y1, width, height        cxcywh  centre, width, height
    relative  shares of the image's width and height, else px
    inclusive the far corner's pixel belongs to the box, as the scripts that score text folders count; else edges

In: four numbers a box, sizes of the images, and for detections the objects.  Out: a Layout and the reason for it, or an
error that names the option. N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.truth import HALF_OPEN, ILSVRC, Convention
from proposals.errors import UserError

FORMS = {
    "xyxy": "x1, y1, x2, y2",
    "xywh": "x, y, width, height",
    "cxcywh": "x and y of the centre, width, height",
}
"""The order of a box's numbers, and how a message states it."""

SHARES = 2.0  # boxes whose numbers are all below this are shares of their image; no box is so small in px
SHARED = 0.99  # share of the boxes of which this must hold
SLACK = 0.02  # share of the image by which a box may reach outside
TOLERATED = 0.1  # greatest share of boxes that may end before they begin or reach outside
CLEARLY = 4  # times as many boxes that one layout explains and another does not
FEW = 15  # boxes below which corners are not told from sizes without the images' sizes
REACH = 1.6  # times by which corners, added as if they were sizes, reach beyond the farthest corner

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """The meaning of a box's four numbers.

    Attributes:
        form: A key of FORMS.
        relative: Whether they are shares of the image; else px.
        convention: Pixel convention of the corners.
    """

    form: str
    relative: bool = False
    convention: Convention = HALF_OPEN

    def __str__(self) -> str:
        return f"{FORMS[self.form]}, {'shares of the image' if self.relative else 'px'}"

    @property
    def option(self) -> str:
        """The value of the option that states this layout."""
        return self.form + ",relative" * self.relative + ",inclusive" * bool(self.convention.inclusive)

    def corners(self, numbers: Numbers, sizes: Numbers) -> Numbers:
        """Return corners [N, 4] px in the convention; sizes [N, 2] matter for relative boxes only."""
        result = _corners(self.form, numbers)
        return result * np.tile(sizes, 2) if self.relative else result


@dataclass(frozen=True)
class Evidence:
    """What is known of the boxes of a file.

    Attributes:
        numbers: [N, 4] as in the file.
        sizes: [N, 2] width and height of each box's image, px; NaN where unknown.
        forms: Forms that the file's kind allows.
        usual: The form that is taken where several of relative boxes are possible; empty for none.
        slack: Share of the image by which a box may reach outside.
    """

    numbers: Numbers
    sizes: Numbers
    forms: Sequence[str] = ("xyxy", "xywh")
    usual: str = ""
    slack: float = SLACK

    @property
    def relative(self) -> bool:
        """Whether the numbers are shares of the image."""
        finite = self.numbers[np.isfinite(self.numbers).all(axis=1)]
        return bool(len(finite)) and bool((np.abs(finite) <= SHARES).all(axis=1).mean() >= SHARED)

    def faults(self, form: str, relative: bool) -> int:
        """Count the boxes that in this form end before they begin or reach outside their image."""
        boxes = _corners(form, self.numbers)
        sizes = np.ones_like(self.sizes) if relative else self.sizes
        pixel = 0 if relative else 1
        wrong = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
        wrong |= (boxes[:, :2] < -self.slack * np.nan_to_num(sizes) - pixel).any(axis=1)
        wrong |= (boxes[:, 2:] > (1 + self.slack) * sizes + pixel).any(axis=1)  # False where NaN
        return int(wrong.sum())


def parse_layout(text: str, option: str) -> Layout | None:
    """Read the value of an option; None where it is empty.

    Raises:
        UserError: another value.
    """
    if not text:
        return None
    form, *more = [word.strip() for word in text.lower().split(",")]
    if form not in FORMS or not set(more) <= {"relative", "inclusive"} or {"relative", "inclusive"} <= set(more):
        raise UserError(
            f"{option} is {', '.join(FORMS)}, with ,relative for shares of the image or ,inclusive where the far "
            f"corner's pixel belongs to the box; not {text!r}"
        )
    return Layout(form, "relative" in more, ILSVRC if "inclusive" in more else HALF_OPEN)


def find_layout(seen: Evidence) -> Layout | None:
    """Find the layout that the numbers and the images' sizes allow; None where several are possible, or none."""
    relative = seen.relative
    count = len(seen.numbers)
    forms = [*dict.fromkeys((*seen.forms, "cxcywh"))] if relative and len(seen.forms) > 1 else list(seen.forms)
    if len(forms) == 1 or not count:
        return Layout(forms[0], relative)
    faults = {form: seen.faults(form, relative) for form in forms}
    possible = sorted((form for form in forms if faults[form] <= TOLERATED * count), key=faults.__getitem__)
    if not possible:
        return None
    best, *others = possible
    if all(faults[other] >= 1 + CLEARLY * faults[best] for other in others):
        return Layout(best, relative)
    if relative:
        return Layout(seen.usual, True) if seen.usual in possible else None
    if "xyxy" in possible and not faults["xyxy"] and np.isnan(seen.sizes).all() and _far(seen.numbers):
        return Layout("xyxy")
    return None


def cannot_tell(seen: Evidence, option: str, layouts: Sequence[Layout] = ()) -> str:
    """Return the end of the message for boxes whose layout is not found."""
    kind = "shares of the image" if seen.relative else "px"
    forms = [*dict.fromkeys(layout.form for layout in layouts)] or list(FORMS)
    suffix = ",relative" * seen.relative
    ways = " or ".join(f"{option} {form}{suffix} ({FORMS[form]})" for form in forms)
    first = seen.numbers[0].tolist()
    return f"the numbers of the boxes, {kind}, may mean several things (the first: {first}); say which:  {ways}"


def better(hits: NDArray[np.bool_], others: NDArray[np.bool_]) -> bool:
    """Whether boxes in one layout lie on objects so much more often than in another that it is no chance.

    Args:
        hits: [N] whether each box lies on an object in the one layout.
        others: [N] the same in the other layout.
    """
    only, only_others = int((hits & ~others).sum()), int((others & ~hits).sum())
    return only >= 3 and only >= CLEARLY * only_others


def _far(numbers: Numbers) -> bool:
    """Whether corners, added as if they were sizes, would reach so far that they must be corners."""
    farthest = numbers[:, 2:].max(axis=0)
    reach = (numbers[:, :2] + numbers[:, 2:]).max(axis=0)
    return len(numbers) >= FEW and bool((reach > REACH * farthest).any())


def _corners(form: str, numbers: NDArray[Any]) -> Numbers:
    first, second = numbers[:, :2], numbers[:, 2:]
    if form == "xyxy":
        return numbers
    near = first - second / 2 if form == "cxcywh" else first
    return np.concatenate([near, near + second], axis=1)
