"""Doubtful boxes: those that readers repair, doubles, whole-image and tiny ones, and images without any.

In: a part's labels.  Out: findings. What a reader cuts or leaves out is known by the reader's own counts alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import FLAT, INVERTED, OUTSIDE, Dataset, Record, Repair
from detector.data.voc_xml import THIN
from detector.doctor.findings import Finding, Level, at, finding
from detector.regions.maps import STRIDE, SharedConfig
from proposals.boxes import area

REPAIRS = {INVERTED: "boxes.inverted", FLAT: "boxes.flat", THIN: "boxes.flat", OUTSIDE: "boxes.outside"}
"""The id of each kind of repair that has one of its own."""
HARMLESS = (
    "images have no label file",
    "images have an empty label file",
    "images that EXIF turns",
    "polygons were replaced",
    "data.classes is empty; the names",
)
"""In readers' remarks: what other checks report, or what loses nothing."""

WHOLE = 0.98
"""Share of the image from which a box is the whole image."""
CELLS = 2
"""Cells of the finest map, along the root of an object's area, below which it is small."""
SEVERAL = 10
"""Objects of a class from which a share of them says something."""
MANY = 0.5, 0.1
"""Shares of the objects from which whole-image boxes, and of a class from which small ones, are a warning."""


def check_repairs(name: str, dataset: Dataset) -> list[Finding]:
    """Report what the reader of a part cut or left out."""
    found: list[Finding] = []
    for line in dataset.warnings:
        if any(remark in line for remark in HARMLESS):
            continue
        if not isinstance(line, Repair):
            found += finding("data.remark", line, [], count=1)
            continue
        kind = next((kind for kind in REPAIRS if line.kind.endswith(kind)), None)
        example = [at(name, line.first)]
        if kind:
            found += finding(REPAIRS[kind], kind, example, count=line.cases)
        else:
            found += finding("data.repaired", line.kind, example, count=line.cases)
    return found


def check_boxes(name: str, dataset: Dataset) -> list[Finding]:
    """Find doubles, whole-image and small boxes, and images without boxes."""
    doubles: list[str] = []
    whole: list[str] = []
    small: list[str] = []
    empty = [at(name, record.path.name) for record in dataset.records if not len(record.boxes)]
    counts, total = np.zeros((2, len(dataset.classes)), np.int64), 0
    for record in dataset.records:
        counted = ~(record.difficult | record.crowd)
        doubles += [_example(name, dataset, record, index) for index in _doubles(record)]
        total += len(record.boxes)
        if not record.width or not record.height:
            continue
        shares = np.asarray(area(record.boxes), np.float64) / (record.width * record.height)
        whole += [_example(name, dataset, record, index) for index in np.flatnonzero(shares >= WHOLE).tolist()]
        tiny = counted & (_cells(shares) < CELLS) & (record.labels >= 0)
        small += [_example(name, dataset, record, index) for index in np.flatnonzero(tiny).tolist()]
        for row, which in enumerate((tiny, counted & (record.labels >= 0))):
            counts[row] += np.bincount(record.labels[which], minlength=counts.shape[1])
    placeholders = Level.warning if len(whole) > MANY[0] * total else None
    share = np.where(counts[1] >= SEVERAL, counts[0] / np.maximum(counts[1], 1), 0.0)
    worst = int(share.argmax()) if len(share) else 0
    many = Level.warning if share.max(initial=0.0) > MANY[1] else None
    of_worst = f", {share[worst]:.0%} of {dataset.classes.names[worst]}" if share.any() else ""
    side = CELLS * STRIDE
    return [
        *finding("boxes.double", "boxes are there twice, to the pixel", doubles),
        *finding("boxes.whole", "boxes are the whole image", whole, level=placeholders),
        *finding(
            "boxes.small",
            f"objects are below {side} px where the image is enlarged most (area {FINEST} × {FINEST}){of_worst}",
            small,
            level=many,
        ),
        *finding(
            "images.empty",
            "images have no boxes",
            empty,
            level=Level.warning if 2 * len(empty) > len(dataset) else None,
        ),
    ]


FINEST = max(SharedConfig().pyramid)
"""Side of the square whose area the image is scaled to at the finest level of the pyramid, px."""


def _cells(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the root of an object's area in cells of the finest map, by its share of the image's area."""
    return np.sqrt(shares) * (FINEST / STRIDE)


def _doubles(record: Record) -> list[int]:
    """Return the boxes that equal an earlier one of their image, whatever their classes."""
    if len(record.boxes) < 2:
        return []
    _, first = np.unique(record.boxes, axis=0, return_index=True)
    return sorted(set(range(len(record.boxes))) - set(first.tolist()))


def _example(name: str, dataset: Dataset, record: Record, index: int) -> str:
    label = int(record.labels[index])
    corners = ", ".join(f"{value:g}" for value in record.boxes[index].round(1).tolist())
    called = dataset.classes.names[label] if label >= 0 else "ignored"
    return at(name, f"{record.path.name} {called} [{corners}]")
