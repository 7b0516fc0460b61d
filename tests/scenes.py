"""Ground truth and detections for tests of the analyses: written out, or random."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import ClassTable, Dataset, Record
from detector.evaluation import DetectionTable, Truth

Box = Sequence[float]


def make_truth(
    images: Sequence[Sequence[tuple[Box, int]]],
    classes: int = 3,
    *,
    ids: Sequence[str] = (),
    difficult: Sequence[tuple[int, int]] = (),
    crowd: Sequence[tuple[int, int]] = (),
) -> Truth:
    """Images as lists of (box, label); difficult and crowd are pairs of image and position."""
    records = []
    for index, objects in enumerate(images):
        boxes = np.array([box for box, _ in objects], np.float64).reshape(-1, 4)
        flags = (
            np.array([(index, place) in some for place in range(len(objects))], np.bool_) for some in (difficult, crowd)
        )
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        labels = np.array([label for _, label in objects], np.int64)
        name = ids[index] if ids else f"photo {index}"
        records.append(Record(name, Path(f"{name}.jpg"), 500, 500, boxes, labels, *flags, areas))
    names = tuple("abcdefgh"[:classes])
    return Truth.of(Dataset("toy", ClassTable(names, (None,) * classes, tuple(range(1, classes + 1))), tuple(records)))


def make_table(rows: Sequence[tuple[int, int, float, Box]]) -> DetectionTable:
    """Rows of (image, label, score, box)."""
    images, labels, scores, boxes = zip(*rows, strict=True) if rows else ((), (), (), ())
    return DetectionTable(
        np.array(images, np.int64),
        np.array(labels, np.int64),
        np.array(scores, np.float64),
        np.array(boxes, np.float64).reshape(-1, 4),
    )


def random_scene(
    seed: int, *, ties: bool = False, crowd: bool = False, images: int = 14
) -> tuple[Truth, DetectionTable]:
    """Objects from 8 to 150 px of three classes and a fourth without any, some difficult; detections on and off them.

    With crowd some are crowds, and areas are smaller than the boxes', as those of masks are.
    """
    generator = np.random.default_rng(seed)

    def box() -> NDArray[np.float64]:
        corner = generator.integers(0, 200, 2)
        return np.concatenate([corner, corner + np.exp(generator.uniform(np.log(8), np.log(150), 2)).round()])

    objects = [[(box(), int(generator.integers(3))) for _ in range(generator.integers(0, 7))] for _ in range(images)]
    flags = [(image, place) for image, some in enumerate(objects) for place in range(len(some))]
    drawn = generator.random(len(flags))
    truth = make_truth(
        objects,
        4,
        difficult=[flag for flag, value in zip(flags, drawn, strict=True) if value < 0.15],
        crowd=[flag for flag, value in zip(flags, drawn, strict=True) if crowd and value > 0.9],
    )
    if crowd:
        truth.areas[:] = (truth.areas * generator.uniform(0.4, 1, len(truth.areas))).round()
    rows = []
    for image, some in enumerate(objects):
        near = [
            (one + generator.integers(-5, 6, 4), label) for one, label in some for _ in range(generator.integers(0, 3))
        ]
        for (x1, y1, x2, y2), label in [*near, *((box(), int(generator.integers(4))) for _ in range(4))]:
            score = float(generator.random())
            rows.append((image, label, round(score, 1) if ties else score, (x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))))
    return truth, make_table([rows[place] for place in generator.permutation(len(rows))])
