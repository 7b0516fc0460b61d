"""Which of several detectors is better, in which classes, and what one finds that another misses.

In: a Truth and a DetectionTable of each detector, on the same images.  Out: a ManyComparison: of each pair the
difference of mean AP and of each class's AP with 95 % intervals, and the objects and false positives of one alone.
All tables get the same resamples of the images, so that what they have in common cancels (detector.evaluation.bootstrap
has the method). No correction is made for the number of classes or pairs: of 20 classes without any difference one has
an interval without 0 on average.
K classes, R resamples, P cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.average import Floats
from detector.evaluation.bootstrap import (
    Interval,
    difference_interval,
    image_weights,
    mean_interval,
    mean_over_classes,
    p_value,
    resampled_ap,
)
from detector.evaluation.matching import HIT, MISS, Matches, iou, match
from detector.evaluation.results import DetectionTable, ResultsError
from detector.evaluation.truth import Truth
from proposals.compiling import compiled


@dataclass(frozen=True)
class Cases:
    """Objects that one table finds and another misses, or its false positives that the other does not have.

    They are sorted by the margin, the greatest first; equal ones in the table's order.

    Attributes:
        images: [P] int64 index of the image.
        objects: [P] int64 position in the truth of the object; -1 for a false positive.
        detections: [P] int64 position in the table of the detection that finds the object, or that is false.
        margins: [P] float64, its score minus the best score of the other table there, 0 where that has nothing.
    """

    images: NDArray[np.int64]
    objects: NDArray[np.int64]
    detections: NDArray[np.int64]
    margins: Floats

    def __len__(self) -> int:
        return len(self.detections)


@dataclass(frozen=True)
class Alone:
    """What one table has and another lacks, from a score on.

    Attributes:
        found: Objects that count, for which it has a true positive and the other has none.
        false: Its false positives for which the other has no false positive of the class in the same place, that is
            with an IoU of at least min_iou.
    """

    found: Cases
    false: Cases


@dataclass(frozen=True)
class PairComparison:
    """The paired comparison of two tables. Differences are the second minus the first.

    Attributes:
        first: Name of the first table.
        second: Name of the second table.
        difference: Difference of mean AP, with its 95 % interval.
        p_value: Two-sided bootstrap p-value for the null hypothesis of no difference, at least 1 / R.
        by_class: K differences of AP with their intervals, which are too narrow for a class in few images; None for a
            class without objects that count.
        first_alone: What the first table has and the second lacks.
        second_alone: What the second table has and the first lacks.
    """

    first: str
    second: str
    difference: Interval
    p_value: float
    by_class: tuple[Interval | None, ...]
    first_alone: Alone
    second_alone: Alone


@dataclass(frozen=True)
class ManyComparison:
    """The comparison of two or more tables of detections on the same images.

    Attributes:
        names: Names of the tables, in the order given.
        mean_ap: Mean AP of each, with its 95 % interval.
        pairs: Each pair, in the order of the names.
        score: Minimum score of the detections in the lists of objects and false positives.
    """

    names: tuple[str, ...]
    mean_ap: tuple[Interval, ...]
    pairs: tuple[PairComparison, ...]
    score: float


def compare_many(
    truth: Truth,
    tables: Mapping[str, DetectionTable],
    *,
    rule: str,
    points: Floats,
    min_iou: float,
    resamples: int = 1000,
    score: float = 0.5,
    seed: int = 0,
) -> ManyComparison:
    """Compare two or more tables of detections on the same images, pair by pair.

    Args:
        truth: The objects.
        tables: The detections, keyed by a name for each table.
        rule: Matching rule: ilsvrc, voc or coco.
        points: Recalls that average precision uses, as in detector.evaluation.average.
        min_iou: IoU from which an object is found, in (0, 1], and from which two false positives are in one place.
        resamples: Number of bootstrap resamples of the images.
        score: Minimum score of the detections in the lists of objects and false positives. AP uses all scores.
        seed: Seed of the random resamples.

    Raises:
        ResultsError: there is no ground truth at all.
        ValueError: fewer than two tables, fewer than one resample, min_iou is out of range, or a table was made for
            another split.
    """
    if len(tables) < 2:
        raise ValueError(f"a comparison needs two tables of detections or more, not {len(tables)}")
    weights = image_weights(len(truth), resamples, seed)
    names, ap, sides = tuple(tables), {}, {}
    for name, table in tables.items():
        matches = match(truth, table, rule, min_iou)
        if not matches.positives.any():
            raise ResultsError(f"{truth.name}: no ground truth in {len(truth)} images, nothing to compare against")
        ap[name] = resampled_ap(truth, matches, table, points, weights)
        sides[name] = _Side.of(truth, table, matches)
    means = {name: mean_over_classes(ap[name]) for name in names}
    pairs = []
    for first, second in combinations(names, 2):
        mean, by_class = means[second] - means[first], ap[second] - ap[first]
        pairs.append(
            PairComparison(
                first,
                second,
                difference_interval(float(mean[0]), mean[1:]),
                p_value(float(mean[0]), mean[1:]),
                tuple(
                    None if np.isnan(column[0]) else difference_interval(float(column[0]), column[1:])
                    for column in by_class.T
                ),
                _alone(truth, sides[first], sides[second], score, min_iou),
                _alone(truth, sides[second], sides[first], score, min_iou),
            )
        )
    intervals = tuple(mean_interval(float(means[name][0]), means[name][1:]) for name in names)
    return ManyComparison(names, intervals, tuple(pairs), score)


@dataclass(frozen=True)
class _Side:
    """A table with what the lists need: the detection that finds each object, and the false positives, best first.

    Attributes:
        table: The D detections, in the truth's convention.
        finder: [M] position of the true positive of each object, -1 for none.
        false: Positions of the false positives, best first.
        floor: Score of a detection that is not there: 0, or the lowest where scores are negative.
    """

    table: DetectionTable
    finder: NDArray[np.int64]
    false: NDArray[np.int64]
    floor: float

    @classmethod
    def of(cls, truth: Truth, table: DetectionTable, matches: Matches) -> _Side:
        hits = np.flatnonzero(matches.status == HIT)
        finder = np.full(len(truth.labels), -1)
        finder[matches.objects[hits]] = hits
        false = matches.order[matches.status[matches.order] == MISS]
        return cls(table.to(truth.convention), finder, false, min(0.0, table.scores.min(initial=0.0)))

    def finding_scores(self) -> Floats:
        """Return the score with which each object is found, [M]; the floor where it is not."""
        result: Floats = np.append(self.table.scores, self.floor)[self.finder]
        return result


def _alone(truth: Truth, own: _Side, other: _Side, score: float, min_iou: float) -> Alone:
    scores = own.table.scores
    theirs = other.finding_scores()
    lacking = (other.finder < 0) | (theirs < score)
    objects = np.flatnonzero((own.finder >= 0) & lacking)
    objects = objects[scores[own.finder[objects]] >= score]
    found = _ranked(own.table, own.finder[objects], objects, theirs[objects])

    rows = own.false[scores[own.false] >= score]
    by_image = other.false[np.argsort(other.table.image_index[other.false], kind="stable")]
    starts = np.searchsorted(other.table.image_index[by_image], np.arange(len(truth) + 1))
    pixel = float(truth.convention.inclusive)
    there = _best_there(_columns(own.table, rows), _columns(other.table, by_image), starts, min_iou, pixel)
    there_scores = np.append(other.table.scores[by_image], other.floor)[there]
    alone = (there < 0) | (there_scores < score)
    none = np.full(int(alone.sum()), -1)
    return Alone(found, _ranked(own.table, rows[alone], none, there_scores[alone]))


def _ranked(table: DetectionTable, rows: NDArray[np.int64], objects: NDArray[np.int64], theirs: Floats) -> Cases:
    margins = table.scores[rows] - theirs
    order = np.lexsort((rows, -margins))
    rows = rows[order]
    return Cases(table.image_index[rows], objects[order], rows, margins[order])


def _columns(table: DetectionTable, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
    return table.boxes[rows], table.image_index[rows], table.labels[rows]


@compiled()
def _best_there(found: Any, others: Any, starts: Any, min_iou: float, pixel: float) -> Any:
    """Find the first of the other detections in the place of each, of its image and class; -1 for none."""
    boxes, images, labels = found
    other_boxes, _, other_labels = others
    result = np.full(len(boxes), -1, np.int64)
    for d in range(len(boxes)):
        for k in range(starts[images[d]], starts[images[d] + 1]):
            if other_labels[k] == labels[d] and iou(boxes, d, other_boxes, k, pixel, False) >= min_iou:
                result[d] = k
                break
    return result
