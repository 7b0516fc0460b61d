"""What the page shows of a comparison: the classes, and pictures of what one finds and another misses.

In: a ManyComparison and the tables that were compared.  Out: a Compared for each pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from detector.analysis.comparing import Cases, ManyComparison, PairComparison
from detector.evaluation.bootstrap import Interval
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from detector.report.gallery import Crop, Gallery, crop, with_pictures
from detector.report.sections import detection_box, object_box

CASES = 6  # of each list


@dataclass(frozen=True)
class Compared:
    """A pair as the page shows it.

    Attributes:
        pair: The numbers.
        differences: Label and difference of each class with objects, the least first.
        lists: Heading, number of cases, and of the clearest ones text, image and crop.
    """

    pair: PairComparison
    differences: list[tuple[int, Interval]]
    lists: list[tuple[str, int, list[tuple[str, str, Crop | None]]]]


def wanted_images(comparison: ManyComparison) -> list[int]:
    """Return the positions of the images with the clearest cases of each list."""
    return [
        index for pair in comparison.pairs for _, _, cases in _lists(pair) for index in cases.images[:CASES].tolist()
    ]


def compared(
    comparison: ManyComparison, tables: Mapping[str, DetectionTable], truth: Truth, gallery: Gallery
) -> list[Compared]:
    """Make what is shown of each pair.

    Args:
        comparison: The numbers.
        tables: The detections, keyed as in the comparison.
        truth: The objects.
        gallery: The pictures of the page.
    """
    return [
        Compared(
            pair,
            sorted(((label, one) for label, one in enumerate(pair.by_class) if one), key=lambda item: item[1].value),
            [
                (
                    heading,
                    len(cases),
                    with_pictures(_shown(cases, place, tables[name], truth, gallery) for place in _first(cases)),
                )
                for heading, name, cases in _lists(pair)
            ],
        )
        for pair in comparison.pairs
    ]


def _lists(pair: PairComparison) -> Iterator[tuple[str, str, Cases]]:
    for name, other, alone in (
        (pair.first, pair.second, pair.first_alone),
        (pair.second, pair.first, pair.second_alone),
    ):
        yield f"Found by {name}, missed by {other}", name, alone.found
        yield f"False positives of {name} alone", name, alone.false


def _first(cases: Cases) -> Sequence[int]:
    return range(min(CASES, len(cases)))


def _shown(
    cases: Cases, place: int, table: DetectionTable, truth: Truth, gallery: Gallery
) -> tuple[str, str, Crop | None]:
    detection, position = int(cases.detections[place]), int(cases.objects[place])
    box = detection_box(truth, table, detection, "false" if position < 0 else "hit")
    boxes = [box] if position < 0 else [object_box(truth, position, "truth"), box]
    index = int(cases.images[place])
    return box[1], truth.image_ids[index], crop(gallery, index, boxes)
