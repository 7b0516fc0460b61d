"""The ground truth of several data sets as one, in which the detections of all their images are scored together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.data.sources import check_labelled, prefix_of
from detector.evaluation.truth import HALF_OPEN, Truth, convert


def joined_truth(parts: Sequence[Truth]) -> Truth:
    """Join ground truth whose classes meet by name in the table of the first.

    Images are named as in `detector.data.sources`, "1/000012". Objects of other classes are left out: no detection is
    held against them. Where the pixel conventions differ, boxes are converted to HALF_OPEN, exactly for whole pixels.

    Args:
        parts: The ground truth of each source, at least one; a single one is returned itself.

    Raises:
        DataError: a source does not label a class of the first.
    """
    if len(parts) == 1:
        return parts[0]
    classes = parts[0].classes
    convention = parts[0].convention if len({part.convention for part in parts}) == 1 else HALF_OPEN
    labels, warnings = [], []
    for part in parts:
        own = part.classes.labels_in(classes)
        check_labelled(part.name, own, classes)
        labels.append(np.append(own, -1)[part.labels])
        warnings += [line if line.startswith(part.name) else f"{part.name}: {line}" for line in part.warnings]
    starts = np.cumsum([0, *map(len, parts)])[:-1].tolist()
    boxes = [np.asarray(convert(part.boxes, part.convention, convention), np.float64) for part in parts]
    truth = Truth(
        name=" + ".join(part.name for part in parts),
        classes=classes,
        image_ids=tuple(prefix_of(place) + name for place, part in enumerate(parts) for name in part.image_ids),
        paths=tuple(path for part in parts for path in part.paths),
        sizes=np.concatenate([part.sizes for part in parts]),
        numbers=None,
        image_index=np.concatenate([part.image_index + start for part, start in zip(parts, starts, strict=True)]),
        labels=np.concatenate(labels),
        boxes=np.concatenate(boxes),
        difficult=np.concatenate([part.difficult for part in parts]),
        crowd=np.concatenate([part.crowd for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        convention=convention,
        numbered=parts[0].numbered,
        warnings=tuple(warnings),
    )
    return truth.with_objects(truth.labels >= 0)
