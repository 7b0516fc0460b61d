"""The pictures of a report, each once: those that its numbers need most, with links from numbers to pictures.

In: the evidence behind the numbers.  Out: a Gallery, and Crops that show a part of its pictures again.
A page embeds each image once; what shows it elsewhere refers to it. The number of pictures is limited, so a number may
have fewer pictures than cases, or none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.matching import Matches
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from detector.report.evidence import Evidence
from detector.report.pictures import Frame, Picture, Tags, draw_pictures, worst_and_best

PICTURES = 72  # about 30 kB each
BEHIND = 3  # pictures of one number that are looked for
LOOKED_AT = 200  # images of one number that are compared
CLOSE = 112.0  # px of a thumbnail, least height of a crop
AROUND = 1.5  # height of a crop over that of its boxes
ASPECT = 4 / 3


@dataclass(frozen=True)
class Gallery:
    """The pictures of a report, worst F1 first.

    Attributes:
        pictures: The pictures.
        tags: The tags of each picture.
        behind: Positions of the pictures behind each number, by its tag; a number without pictures is no key.
        place: Position of each image's picture, by the position of the image.
        images: Number of images that could be shown.
    """

    pictures: tuple[Picture, ...]
    tags: tuple[tuple[str, ...], ...]
    behind: dict[str, tuple[int, ...]]
    place: dict[int, int]
    images: int


@dataclass(frozen=True)
class Crop:
    """A part of a picture of the gallery.

    Attributes:
        place: Position of the picture.
        view: x, y, width and height of the part, px of the thumbnail.
        frames: The boxes on it.
    """

    place: int
    view: tuple[float, float, float, float]
    frames: tuple[Frame, ...]


def make_gallery(
    truth: Truth,
    table: DetectionTable,
    matches: Matches,
    score: float,
    evidence: Mapping[str, Evidence],
    wanted: Sequence[int] = (),
) -> Gallery:
    """Choose and draw the pictures.

    Args:
        truth: The objects.
        table: The detections.
        matches: Their matches.
        score: Lowest score of the detections that are drawn.
        evidence: What stands behind the numbers, by tag.
        wanted: Positions of images that are shown in any case, most wanted first; others get some too.
    """
    worst, best = worst_and_best(truth, table, matches, score)
    evidence = {"worst": Evidence(images=_positions(worst)), "best": Evidence(images=_positions(best)), **evidence}
    images = {tag: one.shown_in(truth, table).tolist() for tag, one in evidence.items()}
    first = list(dict.fromkeys([*worst, *best, *list(dict.fromkeys(wanted))[: PICTURES - 24]]))
    chosen = _choose(images, first)
    tags = Tags(
        _tags_of(evidence, "detections", table.image_index, chosen),
        _tags_of(evidence, "objects", truth.image_index, chosen),
    )
    drawn = draw_pictures(truth, table, matches, table.scores >= score, chosen, tags=tags)
    whole: dict[int, list[str]] = defaultdict(list)
    for tag, one in evidence.items():
        for index in set(one.images.tolist()) & set(chosen):
            whole[index].append(tag)
    pictures = sorted(drawn, key=lambda picture: (picture.f1, -picture.missed - picture.false, picture.index))
    of_picture = [
        tuple(dict.fromkeys([*whole[picture.index], *(tag for frame in picture.frames for tag in frame.tags)]))
        for picture in pictures
    ]
    behind: dict[str, list[int]] = defaultdict(list)
    for place, names in enumerate(of_picture):
        for tag in names if pictures[place].source else ():
            behind[tag].append(place)
    return Gallery(
        tuple(pictures),
        tuple(of_picture),
        {tag: tuple(places) for tag, places in behind.items()},
        {picture.index: place for place, picture in enumerate(pictures)},
        len({index for indices in images.values() for index in indices}),
    )


def crop(gallery: Gallery, index: int, boxes: Iterable[tuple[str, str, NDArray[np.float64]]]) -> Crop | None:
    """Cut a part around boxes out of the picture of an image; None where the gallery does not show the image.

    Args:
        gallery: The pictures.
        index: Position of the image.
        boxes: Kind of frame, text, and box in px of the image, of each frame.
    """
    place = gallery.place.get(index)
    if place is None or not gallery.pictures[place].source:
        return None
    picture = gallery.pictures[place]
    limits = np.array([picture.width, picture.height] * 2)
    scaled = [(kind, text, np.clip(box * picture.scale, 1, limits - 1)) for kind, text, box in boxes]
    corners = np.array([box for _, _, box in scaled])
    (left, top), (right, bottom) = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    height = max(AROUND * (bottom - top), AROUND * (right - left) / ASPECT, CLOSE)
    width, height = min(height * ASPECT, picture.width), min(height, picture.height)
    x = np.clip((left + right - width) / 2, 0, picture.width - width)
    y = np.clip((top + bottom - height) / 2, 0, picture.height - height)
    frames = tuple(
        Frame(kind, text, (box[0], box[1], box[2] - box[0], box[3] - box[1]), None) for kind, text, box in scaled
    )
    view = round(float(x), 1), round(float(y), 1), round(float(width), 1), round(float(height), 1)
    return Crop(place, view, tuple(_rounded(frame) for frame in frames))


def with_pictures(items: Iterable[tuple[str, str, Crop | None]]) -> list[tuple[str, str, Crop | None]]:
    """Keep the items whose picture is shown; all of them where no picture is."""
    listed = list(items)
    return [item for item in listed if item[2]] or listed


def _choose(images: Mapping[str, Sequence[int]], first: Sequence[int]) -> list[int]:
    """Choose images: the first, then for one tag after the other the image that most other tags need too."""
    chosen = dict.fromkeys(first)
    of_image: dict[int, list[str]] = defaultdict(list)
    for tag, indices in images.items():
        for index in indices:
            of_image[index].append(tag)
    have = dict.fromkeys(images, 0)
    for index in chosen:
        for tag in of_image[index]:
            have[tag] += 1
    ranked = sorted(images, key=lambda tag: -len(images[tag]))
    for wanted in range(1, BEHIND + 1):
        for tag in ranked:
            if len(chosen) >= PICTURES:
                return list(chosen)
            left = [index for index in images[tag][:LOOKED_AT] if index not in chosen]
            if have[tag] >= wanted or not left:
                continue
            best = max(left, key=lambda index: (sum(have[one] < wanted for one in of_image[index]), -index))
            chosen[best] = None
            for one in of_image[best]:
                have[one] += 1
    return list(chosen)


def _tags_of(
    evidence: Mapping[str, Evidence], column: str, image_index: NDArray[np.int64], chosen: Sequence[int]
) -> dict[int, list[str]]:
    """Collect the tags of each detection, or of each object, in the chosen images."""
    tags: dict[int, list[str]] = defaultdict(list)
    for tag, one in evidence.items():
        positions = getattr(one, column)
        for position in np.unique(positions[np.isin(image_index[positions], chosen)]).tolist():
            tags[position].append(tag)
    return tags


def _positions(indices: Sequence[int]) -> NDArray[np.int64]:
    return np.array(indices, np.int64)


def _rounded(frame: Frame) -> Frame:
    x, y, width, height = (round(float(value), 1) for value in frame.box)
    return Frame(frame.kind, frame.text, (x, y, width, height), frame.label)
