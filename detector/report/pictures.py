"""Images as thumbnails with boxes: those that are asked for, or those with the worst mistakes.

In: the ground truth, the detections and their matches.  Out: Pictures, which macros.html.jinja draws. Only the images
that are shown are read.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from detector.data.image import Image, ImageError, read_image
from detector.evaluation.matching import HIT, IGNORED, MISS, Matches
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import HALF_OPEN, Truth, convert

WORST, BEST = 8, 4
MISTAKEN = 6  # most images of each kind of mistake
SIDE, SMALL = 480, 400  # px, longest side of a thumbnail
FALSE_DRAWN = 15  # most false positives drawn on an image, those with the highest scores
KINDS = ("missed", "false", "hit", "truth", "ignored")  # kinds of frames, most important first
LABEL_HEIGHT, LETTER = 18.0, 7.4  # px of a thumbnail


@dataclass(frozen=True)
class Frame:
    """A box drawn on an image, in px of the thumbnail.

    Attributes:
        kind: One of KINDS; "truth" is an object that was found.
        text: Name of the class, and the score of a detection.
        box: x, y, width, height.
        label: x, y and width of the text; None where it would cover another text.
        tags: Tags of the detection or the object.
    """

    kind: str
    text: str
    box: tuple[float, ...]
    label: tuple[float, float, float] | None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tags:
    """Tags of detections and objects, by their positions: what of a report each of them stands behind."""

    detections: Mapping[int, Sequence[str]] = field(default_factory=dict)
    objects: Mapping[int, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    """A box to draw, in px of the image; the other attributes are a Frame's."""

    kind: str
    text: str
    box: NDArray[np.float64]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """An image with its boxes.

    Attributes:
        image_id: Id of the image.
        f1: F1 of its detections, in [0, 1].
        hits, false, missed: Numbers of true positives, false positives and missed objects.
        source: JPEG as a data URI; empty where the image cannot be read.
        width, height: Size of the thumbnail, px.
        frames: Boxes in the order of drawing.
        problem: Reason why the image cannot be read.
        absent: Whether the reason is that the file does not exist.
        index: Position of the image.
        scale: Size of the thumbnail over that of the image.
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
    index: int = 0
    scale: float = 1.0


def worst_and_best(truth: Truth, table: DetectionTable, matches: Matches, score: float) -> tuple[list[int], list[int]]:
    """Find the images with the lowest F1, equal ones by more errors, and with the highest F1, equal ones by more hits.

    Returns the positions of the images.

    Images with neither objects that count nor detections above the score have no F1 and are left out.

    Args:
        truth: The objects.
        table: The detections.
        matches: Their matches.
        score: Minimum score of the detections shown.
    """
    shown = table.scores >= score
    hits, false, missed = _counts(truth, table, matches, shown)
    errors, f1 = false + missed, _f1(hits, false, missed)
    ranked = np.flatnonzero(hits + errors)
    worst = [index for index in ranked[np.lexsort((-errors[ranked], f1[ranked]))].tolist() if errors[index]][:WORST]
    best = [index for index in ranked[np.lexsort((-hits[ranked], -f1[ranked]))].tolist() if hits[index]]
    best = [index for index in best if index not in worst][:BEST]
    return worst, best


def missed_and_false(
    truth: Truth, table: DetectionTable, matches: Matches, count: int = MISTAKEN, side: int = SMALL
) -> tuple[list[Picture], list[Picture]]:
    """Find the images that miss most objects, and those with the false positives of the highest scores.

    No image is in both lists; of equal ones the first comes first. Only mistakes have labels.

    Args:
        truth: The objects.
        table: The detections that are shown.
        matches: Their matches.
        count: Most images in a list.
        side: Longest side of a thumbnail, px.
    """
    shown = np.ones(len(table), np.bool_)
    _, _, missed = _counts(truth, table, matches, shown)
    most = np.lexsort((np.arange(len(truth)), -missed))
    most = most[missed[most] > 0][:count]
    wrong = np.flatnonzero(matches.status == MISS)
    wrong = table.image_index[wrong[np.argsort(-table.scores[wrong], kind="stable")]]
    chosen = set(most.tolist())
    confident = [index for index in dict.fromkeys(wrong.tolist()) if index not in chosen][:count]
    parts = (most.tolist(), confident)
    first, second = (draw_pictures(truth, table, matches, shown, part, side, KINDS[:2]) for part in parts)
    return first, second


def _counts(
    truth: Truth, table: DetectionTable, matches: Matches, shown: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Count the true positives, false positives and missed objects of each image."""
    hits, false = (
        np.bincount(table.image_index[shown & (matches.status == status)], minlength=len(truth))
        for status in (HIT, MISS)
    )
    return hits, false, np.bincount(truth.image_index[matches.counted], minlength=len(truth)) - hits


def _f1(hits: NDArray[np.int64], false: NDArray[np.int64], missed: NDArray[np.int64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 2 * hits / np.maximum(2 * hits + false + missed, 1)
    return result


def draw_pictures(
    truth: Truth,
    table: DetectionTable,
    matches: Matches,
    shown: NDArray[np.bool_],
    indices: Sequence[int],
    side: int = SIDE,
    labelled: Sequence[str] = KINDS[:3],
    tags: Tags | None = None,
) -> list[Picture]:
    """Draw images with the objects and the detections that are shown.

    Args:
        truth: The objects.
        table: The D detections.
        matches: Their matches.
        shown: [D] mask of the detections that are drawn.
        indices: Positions of the images.
        side: Longest side of a thumbnail, px.
        labelled: Kinds of frames that get labels.
        tags: Tags of the frames; None for none.
    """
    hits, false, missed = _counts(truth, table, matches, shown)
    f1 = _f1(hits, false, missed)

    def picture(index: int) -> Picture:
        path = truth.paths[index]
        numbers = int(hits[index]), int(false[index]), int(missed[index])
        plain = Picture(truth.image_ids[index], float(f1[index]), *numbers, index=index)
        try:
            image = read_image(path)
        except ImageError as error:
            problem = f"{path.name}: {str(error).removeprefix(f'{path}: ')}"
            return replace(plain, problem=problem, absent=not path.exists())
        height, width = image.shape[:2]
        scale = side / max(height, width)
        rows = np.flatnonzero(shown & (table.image_index == index))
        frames = _frames(truth, table, matches, index, rows, tags or Tags())
        return replace(
            plain,
            source=thumbnail(image, side),
            width=round(width * scale, 1),
            height=round(height * scale, 1),
            frames=_placed(frames, scale, width * scale, height * scale, labelled),
            scale=scale,
        )

    return [picture(index) for index in indices]


def thumbnail(image: Image, side: int) -> str:
    """Return an image [H, W, 3] uint8 RGB, its longest side at most `side` px, as a JPEG in a data URI."""
    small = PIL.Image.fromarray(image)
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _frames(
    truth: Truth, table: DetectionTable, matches: Matches, index: int, rows: NDArray[np.int64], tags: Tags
) -> list[Drawn]:
    """Collect the boxes of the objects and of the detections in rows, by KINDS."""
    names = truth.classes.names
    found = set(matches.objects[rows[matches.status[rows] == HIT]].tolist())
    groups: dict[str, list[Drawn]] = {kind: [] for kind in KINDS}
    objects = truth.objects_of(index)
    boxes = np.asarray(convert(truth.boxes[objects], truth.convention, HALF_OPEN), np.float64)
    for number, box in zip(range(objects.start, objects.stop), boxes, strict=True):
        kind = ("truth" if number in found else "missed") if matches.counted[number] else "ignored"
        text = "missed " * (kind == "missed") + names[truth.labels[number]]
        groups[kind].append(Drawn(kind, text, box, tuple(tags.objects.get(number, ()))))
    kinds = {HIT: "hit", MISS: "false", IGNORED: "ignored"}
    rows = rows[np.argsort(-table.scores[rows], kind="stable")]
    for row, box in zip(rows.tolist(), table[rows].to(HALF_OPEN).boxes, strict=True):
        kind, text = kinds[int(matches.status[row])], f"{names[table.labels[row]]} {table.scores[row]:.2f}"
        groups[kind].append(Drawn(kind, text, box, tuple(tags.detections.get(row, ()))))
    del groups["false"][FALSE_DRAWN:]
    return [frame for group in groups.values() for frame in group]


def _placed(
    frames: Sequence[Drawn],
    scale: float,
    width: float,
    height: float,
    labelled: Sequence[str],
) -> tuple[Frame, ...]:
    """Scale frames to a thumbnail of width x height px; the first ones are on top and get their labels first."""
    taken: list[tuple[float, float, float]] = []
    placed = []
    for frame in frames:
        box, text = frame.box, frame.text
        # Half a line inside, so that a box at the border is visible.
        left, right = np.clip(box[[0, 2]] * scale, 1, width - 1).round(1).tolist()
        top, bottom = np.clip(box[[1, 3]] * scale, 1, height - 1).round(1).tolist()
        if len(text) > 28:
            text = text[:12] + "…" + text[-15:]
        size = min(len(text) * LETTER + 8, width)
        label = None
        if frame.kind in labelled:
            positions = (
                (round(max(0.0, min(x, width - size)), 1), round(max(0.0, min(y, height - LABEL_HEIGHT)), 1), size)
                for x in (left, right - size)
                for y in (top - LABEL_HEIGHT, top, bottom - LABEL_HEIGHT, bottom)
            )
            label = next((one for one in positions if not any(_overlap(one, other) for other in taken)), None)
            taken += [label] if label else []
        corner = left, top, round(right - left, 1), round(bottom - top, 1)
        placed.append(Frame(frame.kind, text, corner, label, frame.tags))
    return tuple(reversed(placed))


def _overlap(first: tuple[float, float, float], second: tuple[float, float, float]) -> bool:
    apart = first[0] + first[2] <= second[0] or second[0] + second[2] <= first[0]
    return not apart and abs(first[1] - second[1]) < LABEL_HEIGHT
