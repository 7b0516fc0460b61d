"""Random ground truth and detections that hold what evaluators stumble over, for comparisons with other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import ClassTable
from detector.evaluation import DetectionTable, Truth
from detector.evaluation.truth import HALF_OPEN, ILSVRC, Convention, convert

COCO_IDS = (1, 2, 17, 44, 90)  # with gaps, as COCO's
WNIDS = tuple(f"n{label:08d}" for label in range(len(COCO_IDS)))
SIDE = 200


def random_case(seed: int, convention: Convention) -> tuple[Truth, DetectionTable]:
    """Make 1 to 12 images, or one time in fifty 150, with objects and detections of up to five classes.

    Each of these is in some of the cases: equal scores, one score for all, objects and detections twice, crowds,
    difficult objects, objects of a few pixels, boxes without area and boxes that end before they begin, classes without
    objects, without detections or without either, images without objects or detections, pairs on ILSVRC's blacklist,
    more than COCO's hundred detections of a class in an image, image ids out of order. Coordinates are multiples of
    1/64 px: sums and products of them are exact, so that programs that store sides and programs that store corners see
    the same overlaps.
    """
    generator = np.random.default_rng(seed)
    images = 150 if generator.random() < 0.02 else int(generator.choice([1, 2, 4, 8, 12]))
    classes = int(generator.integers(1, len(COCO_IDS) + 1))
    whole, small = generator.random(2) < (0.6, 0.25)

    def draw(count: int) -> NDArray[np.float64]:
        """Corners in half-open pixels; in the cases with small boxes nearly all overlap something."""
        side = generator.integers(1, 14 if small else 90, (count, 2))
        corner = generator.integers(0, 30 if small else SIDE - 90, (count, 2))
        boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float64)
        return boxes if whole else boxes + generator.integers(0, 32, (count, 4)) / 64

    per_image = generator.poisson(generator.choice([0.7, 2.0, 5.0]), images)
    image_index = np.repeat(np.arange(images), per_image)
    labels = generator.integers(0, generator.integers(1, classes + 1), len(image_index))
    boxes = draw(len(image_index))
    twice = generator.random(len(boxes)) < generator.choice([0.0, 0.15])
    image_index, labels, boxes = (np.concatenate([a, a[twice]]) for a in (image_index, labels, boxes))
    if not len(boxes):
        image_index, labels, boxes = np.zeros(1, np.int64), np.zeros(1, np.int64), draw(1)
    order = np.argsort(image_index, kind="stable")
    image_index, labels, boxes = image_index[order], labels[order], boxes[order]

    crowd = generator.random(len(boxes)) < generator.choice([0.0, 0.15])
    boxes[crowd, 2:] += generator.integers(0, 40, (int(crowd.sum()), 1))
    difficult = generator.random(len(boxes)) < generator.choice([0.0, 0.2])
    pairs = np.stack([generator.integers(0, images, 4), generator.integers(0, classes, 4)], axis=1)
    blacklist = pairs[: generator.choice([0, 0, 2, 4])]
    counted = int(generator.integers(len(boxes)))  # one object at least counts
    crowd[counted] = difficult[counted] = False
    kept = (blacklist != (image_index[counted], labels[counted])).any(axis=1) & (convention == ILSVRC)
    blacklist = blacklist[kept]

    found = _detections(generator, images, classes, (image_index, labels, boxes), draw)
    names = tuple(str(number) for number in generator.permutation(1000)[:images] + 1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * generator.choice([1.0, 0.75])  # a mask's is less
    truth = Truth(
        name="random",
        classes=ClassTable(tuple("abcde"[:classes]), WNIDS[:classes], COCO_IDS[:classes]),
        image_ids=names,
        paths=tuple(Path(f"{name}.jpg") for name in names),
        sizes=np.full((images, 2), SIDE),
        numbers=np.array(names, np.int64),
        image_index=image_index,
        labels=labels,
        boxes=np.asarray(convert(boxes, HALF_OPEN, convention)),
        difficult=difficult,
        crowd=crowd,
        areas=areas,
        convention=convention,
        blacklist=frozenset((int(image), int(label)) for image, label in blacklist),
    )
    return truth, found.to(convention)


def _detections(
    generator: np.random.Generator,
    images: int,
    classes: int,
    objects: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]],
    draw: object,
) -> DetectionTable:
    """Moved copies of objects, exact ones among them, and boxes anywhere."""
    assert callable(draw)
    image_index, labels, boxes = objects
    near = np.repeat(np.arange(len(boxes)), generator.poisson(generator.choice([0.5, 1.5, 3.0]), len(boxes)))
    reach = generator.choice([0, 1, 4, 12], len(near))[:, None]
    moved = (
        boxes[near] + generator.integers(-1, 2, (len(near), 4)) * generator.integers(0, 8, (len(near), 4)) * reach / 4
    )
    confused = generator.random(len(near)) < 0.2
    named = np.where(confused, generator.integers(0, classes, len(near)), labels[near])
    far = int(generator.choice([0, 3, 20])) * min(images, 12)
    image = np.concatenate([image_index[near], generator.integers(0, images, far)])
    label = np.concatenate([named, generator.integers(0, classes, far)])
    corners = np.concatenate([moved, draw(far)])
    if generator.random() < 0.02:  # more of one image and class than COCO looks at
        many = 130
        image, label = np.append(image, np.zeros(many, np.int64)), np.append(label, np.full(many, labels[0]))
        corners = np.concatenate([corners, draw(many)])
    again = generator.random(len(image)) < generator.choice([0.0, 0.2])
    image, label, corners = (np.concatenate([a, a[again]]) for a in (image, label, corners))

    ordinary = generator.random() < 0.7
    low = np.minimum(corners[:, :2], corners[:, 2:] - 1)
    corners[:, :2] = low if ordinary else corners[:, :2]  # else some end before they begin
    flat = generator.random((len(corners), 2)) < (0.0 if ordinary else 0.1)
    corners[:, 2:] = np.where(flat, corners[:, :2], corners[:, 2:])
    scores = [
        generator.random(len(image)),
        generator.random(len(image)).round(1),
        generator.normal(size=len(image)).round(2),  # logits
        np.full(len(image), 0.5),
    ][generator.choice(4, p=[0.4, 0.3, 0.25, 0.05])]
    kept = label != (classes - 1 if generator.random() < 0.15 else -1)  # a class of which there is no detection
    order = generator.permutation(np.flatnonzero(kept))
    return DetectionTable(image[order], label[order], scores[order], corners[order])
