"""The photographs of a report: the worst and the best, as thumbnails with the boxes of objects and detections.

In: the ground truth, the detections and their matches.  Out: Pictures, which page.html.jinja draws.
Of the photographs only those that are shown are read.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from detector.data.image import ImageError, read_image
from detector.evaluation.matching import HIT, IGNORED, MISS, Matches
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import HALF_OPEN, Truth, convert

WORST, BEST = 8, 4
SIDE = 480  # px, longest side of a thumbnail
FALSE_DRAWN = 15  # false positives of a photograph, the best scored
KINDS = ("missed", "false", "hit", "truth", "ignored")  # of frames, what matters most first
LABEL_HEIGHT, LETTER = 18.0, 7.4  # px of a thumbnail


@dataclass(frozen=True)
class Frame:
    """A box on a photograph, in px of the thumbnail.

    Attributes:
        kind: one of KINDS; truth is an object that was found.
        text: its class, and the score of a detection.
        box: x, y, width, height.
        label: x, y, width of its text; None where that would cover another's.
    """

    kind: str
    text: str
    box: tuple[float, ...]
    label: tuple[float, float, float] | None


@dataclass(frozen=True)
class Picture:
    """A photograph with its frames.

    Attributes:
        image_id: its name.
        f1: in [0, 1].
        hits, false, missed: their numbers.
        source: the JPEG as a data URI, empty where it could not be read.
        width, height: px of the thumbnail.
        frames: in the order of drawing.
        problem: why it could not be read.
        absent: whether that is because there is no such file.
    """

    image_id: str
    f1: float
    hits: int
    false: int
    missed: int
    source: str = ""
    width: float = 0
    height: float = 0
    frames: tuple[Frame, ...] = ()
    problem: str = ""
    absent: bool = False


def worst_and_best(
    truth: Truth, table: DetectionTable, matches: Matches, score: float
) -> tuple[list[Picture], list[Picture]]:
    """The photographs with the least F1, of equals more errors first, and those with the greatest, more hits first.

    Those with neither an object that counts nor a detection from the score on have no F1.

    Args:
        truth: the objects.
        table: the detections.
        matches: of the two.
        score: what a detection must reach to be shown.
    """
    shown = table.scores >= score
    hits, false = (
        np.bincount(table.image_index[shown & (matches.status == status)], minlength=len(truth))
        for status in (HIT, MISS)
    )
    missed = np.bincount(truth.image_index[matches.counted], minlength=len(truth)) - hits
    errors = false + missed
    f1 = 2 * hits / np.maximum(2 * hits + errors, 1)
    ranked = np.flatnonzero(hits + errors)
    worst = [index for index in ranked[np.lexsort((-errors[ranked], f1[ranked]))].tolist() if errors[index]][:WORST]
    best = [index for index in ranked[np.lexsort((-hits[ranked], -f1[ranked]))].tolist() if hits[index]]
    best = [index for index in best if index not in worst][:BEST]

    def picture(index: int) -> Picture:
        numbers = float(f1[index]), int(hits[index]), int(false[index]), int(missed[index])
        rows = np.flatnonzero(shown & (table.image_index == index))
        return _picture(truth, table, matches, index, rows, numbers)

    return [picture(index) for index in worst], [picture(index) for index in best]


def _picture(
    truth: Truth,
    table: DetectionTable,
    matches: Matches,
    index: int,
    rows: NDArray[np.int64],
    numbers: tuple[float, int, int, int],
) -> Picture:
    """An image with its objects and the detections of rows drawn on it."""
    image_id, path = truth.image_ids[index], truth.paths[index]
    try:
        image = read_image(path)
    except ImageError as error:
        problem = f"{path.name}: {str(error).removeprefix(f'{path}: ')}"
        return Picture(image_id, *numbers, problem=problem, absent=not path.exists())
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    thumbnail = PIL.Image.fromarray(image)
    thumbnail.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=82)
    frames = _frames(truth, table, matches, index, rows)
    return Picture(
        image_id,
        *numbers,
        source="data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(),
        width=round(width * scale, 1),
        height=round(height * scale, 1),
        frames=_placed(frames, scale, width * scale, height * scale),
    )


def _frames(
    truth: Truth, table: DetectionTable, matches: Matches, index: int, rows: NDArray[np.int64]
) -> list[tuple[str, str, NDArray[np.float64]]]:
    """(kind, text, box in px of the photograph), what matters most first."""
    names = truth.classes.names
    found = set(matches.objects[rows[matches.status[rows] == HIT]].tolist())
    groups: dict[str, list[tuple[str, NDArray[np.float64]]]] = {kind: [] for kind in KINDS}
    objects = truth.objects_of(index)
    boxes = np.asarray(convert(truth.boxes[objects], truth.convention, HALF_OPEN), np.float64)
    for number, box in zip(range(objects.start, objects.stop), boxes, strict=True):
        kind = ("truth" if number in found else "missed") if matches.counted[number] else "ignored"
        groups[kind].append(("missed " * (kind == "missed") + names[truth.labels[number]], box))
    kinds = {HIT: "hit", MISS: "false", IGNORED: "ignored"}
    rows = rows[np.argsort(-table.scores[rows], kind="stable")]
    for row, box in zip(rows.tolist(), table[rows].to(HALF_OPEN).boxes, strict=True):
        groups[kinds[int(matches.status[row])]].append((f"{names[table.labels[row]]} {table.scores[row]:.2f}", box))
    del groups["false"][FALSE_DRAWN:]
    return [(kind, text, box) for kind, group in groups.items() for text, box in group]


def _placed(
    frames: Sequence[tuple[str, str, NDArray[np.float64]]], scale: float, width: float, height: float
) -> tuple[Frame, ...]:
    """Frames in a thumbnail of width x height px, the first on top and first to get a free place for its label."""
    taken: list[tuple[float, float, float]] = []
    placed = []
    for kind, text, box in frames:
        # Half a line inside, so that a box at the border is seen.
        left, right = np.clip(box[[0, 2]] * scale, 1, width - 1).round(1).tolist()
        top, bottom = np.clip(box[[1, 3]] * scale, 1, height - 1).round(1).tolist()
        if len(text) > 28:
            text = text[:12] + "…" + text[-15:]
        size = min(len(text) * LETTER + 8, width)
        label = None
        if kind in KINDS[:3]:
            sides = [
                (x, y) for x in (left, right - size) for y in (top - LABEL_HEIGHT, top, bottom - LABEL_HEIGHT, bottom)
            ]
            places = [
                (round(max(0.0, min(x, width - size)), 1), round(max(0.0, min(y, height - LABEL_HEIGHT)), 1), size)
                for x, y in sides
            ]
            label = next((place for place in places if not any(_overlap(place, other) for other in taken)), None)
            taken += [label] if label else []
        placed.append(Frame(kind, text, (left, top, round(right - left, 1), round(bottom - top, 1)), label))
    return tuple(reversed(placed))


def _overlap(first: tuple[float, float, float], second: tuple[float, float, float]) -> bool:
    apart = first[0] + first[2] <= second[0] or second[0] + second[2] <= first[0]
    return not apart and abs(first[1] - second[1]) < LABEL_HEIGHT
