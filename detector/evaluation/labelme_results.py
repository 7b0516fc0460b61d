"""labelme's JSON files whose shapes have a score -> checked detections.

The score is the shape's `score`, as labelling tools with a model write it, or its description, as `detect --format
labelme --confidence` does. A file without shapes is an image without detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detector.data.ground_truth import DataError
from detector.data.labelme import Annotated, read_shapes
from detector.data.listing import IMAGE_SUFFIXES
from detector.data.trees import IMAGE_FOLDERS, LABEL_FOLDERS, Counterparts
from detector.evaluation.box_layouts import Layout
from detector.evaluation.checking import Results
from detector.evaluation.names import UNKNOWN, Names
from detector.evaluation.results import ResultsError
from detector.evaluation.row_results import results_of_rows
from detector.evaluation.rows import Rows
from detector.evaluation.truth import Truth


def read_labelme_results(folder: Path, files: Sequence[Path], truth: Truth) -> Results:
    """Read labelme's files, each for the image of its own name, else for the one that its imagePath names.

    Raises:
        ResultsError: a file is malformed or not labelme's, a shape has no score, or a check failed (checking.py).
    """
    images = Counterparts(folder, IMAGE_SUFFIXES, LABEL_FOLDERS, IMAGE_FOLDERS)
    found: list[Annotated] = []
    for path in files:
        try:
            one = read_shapes(path, images)
        except DataError as error:
            raise ResultsError(str(error)) from error
        if one is None:
            raise ResultsError(f"{path}: not a file of labelme's; give the file itself, or a folder of labelme's alone")
        for place, shape in enumerate(one.shapes, 1):
            if shape.score is None:
                raise ResultsError(
                    f"{path}: shape {place} ({shape.label}) has no score, neither as score nor as description; these "
                    "may be labels (detect --format labelme writes scores with --confidence)"
                )
        found.append(one)
    known = Names(truth)
    names = [one.path.relative_to(folder).with_suffix("").as_posix() for one in found]
    names = [
        one.image.name if known.image(name) == UNKNOWN != known.image(one.image.name) else name
        for name, one in zip(names, found, strict=True)
    ]
    of_image = np.repeat(np.arange(len(found)), [len(one.shapes) for one in found]).astype(np.int64)
    shapes = [(one, place, shape) for one in found for place, shape in enumerate(one.shapes, 1)]
    rows = Rows(
        path=folder,
        images=names,
        files=[one.image for one in found],
        sizes=np.array([one.size for one in found], np.int64).reshape(-1, 2),
        of_image=of_image,
        classes=[shape.label for _, _, shape in shapes],
        boxes=np.array([shape.box for _, _, shape in shapes], np.float64).reshape(-1, 4),
        scores=np.array([shape.score for _, _, shape in shapes], np.float64),
        difficult=np.zeros(len(shapes), np.bool_),
        forms=("xyxy",),
        where=lambda i: f"{shapes[i][0].path.relative_to(folder)} shape {shapes[i][1]}",
    )
    return results_of_rows(rows, truth, Layout("xyxy"))
