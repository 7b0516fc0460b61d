"""What stands behind the numbers of a report: the detections, the objects and the images that each of them counts.

In: a Report and what it was made of.  Out: Evidence by tag. A tag is a short name of a number on the page, such as
"missed-3" for the missed objects of class 3; its pictures carry it (gallery.py), and the page's links name it.
Only detections from the report's score on are drawn, so only they are evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from detector.analysis.slices import counts_of
from detector.analysis.values import slices_of
from detector.evaluation.diagnosis import error_kinds
from detector.evaluation.matching import HIT, IGNORED, MISS, Matches
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from detector.report.contents import Report

Positions = NDArray[np.int64]
NONE: Positions = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Evidence:
    """Positions of the detections, the objects and the images that a number counts; an image as a whole, without box.

    Attributes:
        detections: [P] positions in the table.
        objects: [P] positions in the truth's objects.
        images: [P] positions of images.
    """

    detections: Positions = field(default_factory=lambda: NONE)
    objects: Positions = field(default_factory=lambda: NONE)
    images: Positions = field(default_factory=lambda: NONE)

    def shown_in(self, truth: Truth, table: DetectionTable) -> Positions:
        """Return the positions of the images in which the evidence is, each once."""
        parts = table.image_index[self.detections], truth.image_index[self.objects], self.images
        return np.unique(np.concatenate(parts))


def collect(
    truth: Truth,
    table: DetectionTable,
    matches: Matches,
    report: Report,
    score: float,
    columns: Mapping[str, list[str]] | None = None,
) -> dict[str, Evidence]:
    """Collect the evidence behind the numbers of a report, by tag; without what no image shows.

    Args:
        truth: The objects.
        table: The detections.
        matches: Their matches.
        report: The numbers.
        score: Lowest score of the detections that are drawn.
        columns: Values of the slices by image, as read_slices returns them.
    """
    evidence = dict(_by_class(truth, table, matches, score))
    kinds = error_kinds(truth, table, matches) if report.diagnosis else {}
    evidence |= {
        f"error-{kind}": Evidence(np.flatnonzero(mask & (table.scores >= score))) for kind, mask in kinds.items()
    }
    if report.confusion:
        evidence |= _by_cell(report)
    missed = _missed(table, matches, score)
    if report.sizes:
        sides = np.sqrt(truth.areas)
        for place, row in enumerate(report.sizes):
            of_size = missed & (sides >= row.low) & (sides <= row.high)
            evidence[f"size-{place}"] = Evidence(objects=np.flatnonzero(of_size))
    if report.calibration:
        bins = np.searchsorted(report.calibration.edges[1:-1], table.scores)
        shown = (table.scores >= score) & (matches.status != IGNORED) & (matches.positives[table.labels] > 0)
        for place in range(len(report.calibration.counts)):
            evidence[f"scores-{place}"] = Evidence(np.flatnonzero(shown & (bins == place)))
    for place, (_, kept) in enumerate(counts_of(truth, matches) if report.object_counts else ()):
        evidence[f"count-{place}"] = Evidence(images=np.flatnonzero(kept))
    slices = [kept for name, values in (columns or {}).items() for _, kept in slices_of(name, values)]
    for place, kept in enumerate(slices if report.slices else ()):
        evidence[f"slice-{place}"] = Evidence(images=np.flatnonzero(kept))
    for suspect in report.suspects or ():
        old = evidence.get(f"label-{suspect.kind}", Evidence())
        own = [] if suspect.detection is None else [suspect.detection]
        evidence[f"label-{suspect.kind}"] = Evidence(
            np.append(old.detections, np.array(own, np.int64)),
            np.append(old.objects, np.array(suspect.objects, np.int64)),
        )
    return {tag: one for tag, one in evidence.items() if len(one.detections) + len(one.objects) + len(one.images)}


def _missed(table: DetectionTable, matches: Matches, score: float) -> NDArray[np.bool_]:
    """Tell which objects count and are found by no detection that is shown, [M]."""
    missed = matches.counted.copy()
    missed[matches.objects[(matches.status == HIT) & (table.scores >= score)]] = False
    return missed


def _by_class(truth: Truth, table: DetectionTable, matches: Matches, score: float) -> Iterator[tuple[str, Evidence]]:
    missed = _missed(table, matches, score)
    shown = table.scores >= score
    for label in range(len(truth.classes)):
        of_class = shown & (table.labels == label)
        hits = np.flatnonzero(of_class & (matches.status == HIT))
        yield f"found-{label}", Evidence(hits, matches.objects[hits])
        yield f"false-{label}", Evidence(np.flatnonzero(of_class & (matches.status == MISS)))
        yield f"missed-{label}", Evidence(objects=np.flatnonzero(missed & (truth.labels == label)))


def _by_cell(report: Report) -> Iterator[tuple[str, Evidence]]:
    """Make the evidence of the cells of the confusion matrix off its diagonal."""
    assert report.confusion
    confusion = report.confusion
    codes = confusion.cells[:, 0] * len(confusion.matrix) + confusion.cells[:, 1]
    order = np.argsort(codes, kind="stable")
    values, starts = np.unique(codes[order], return_index=True)
    for code, rows in zip(values.tolist(), np.split(order, starts[1:]), strict=True):
        real, taken = divmod(code, len(confusion.matrix))
        if real == taken:
            continue
        detections, objects = confusion.detections[rows], confusion.objects[rows]
        yield f"cell-{real}-{taken}", Evidence(detections[detections >= 0], objects[objects >= 0])
