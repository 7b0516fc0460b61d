"""The files of detect that hold a whole run: COCO's results, CSV, ILSVRC's submission, YOLO's names of classes.

In: what was found in each image, in the order of the run.  Out: the text of each file by its name.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence

from detector.commands.results import Done
from detector.commands.written import OutputError
from detector.data.ground_truth import ClassTable, listed
from detector.data.ilsvrc import det_classes
from detector.evaluation.results import class_keys
from detector.formats import CSV_HEADER, coco_results, csv_rows, ilsvrc_txt, yolo_yaml

RUN_FILES = {
    "coco": ("detections.coco.json",),
    "csv": ("detections.csv",),
    "ilsvrc": ("detections.ilsvrc.txt", "images.ilsvrc.txt"),
    "yolo": ("classes.txt", "data.yaml"),
}
"""Files of a whole run, by format."""


def run_files(kind: str, some: Sequence[Done], classes: ClassTable) -> dict[str, str]:
    """Return the files of a format by their names; none of a format that has a file for each image alone."""
    texts: tuple[str, ...] = ()
    if kind == "coco":
        texts = (_coco_text(some, classes),)
    elif kind == "csv":
        texts = (_csv_text(some),)
    elif kind == "ilsvrc":
        det_ids = det_ids_of(classes)
        texts = (
            "".join(ilsvrc_txt(one.detections, one.item.number, det_ids) for one in some),
            "".join(f"{one.item.relative.with_suffix('').as_posix()} {one.item.number}\n" for one in some),
        )
    elif kind == "yolo":
        texts = ("".join(f"{name}\n" for name in class_keys(classes)), yolo_yaml(class_keys(classes)))
    return dict(zip(RUN_FILES.get(kind, ()), texts, strict=True))


def det_ids_of(classes: ClassTable) -> list[int]:
    """Return ILSVRC's number of each class, 1..200; 0 for a class that ILSVRC does not have."""
    known = det_classes()
    return [known.ids[label] if label >= 0 else 0 for label in classes.labels_in(known).tolist()]


def check_ilsvrc(classes: ClassTable) -> tuple[str, ...]:
    """Return a line that names the classes that ILSVRC does not have; none where it has all.

    Raises:
        OutputError: It has none of them.
    """
    absent = [name for name, det_id in zip(classes.names, det_ids_of(classes), strict=True) if not det_id]
    if len(absent) == len(classes):
        raise OutputError(f"--format ilsvrc: none of the classes is one of ILSVRC's 200: {listed(absent, 5)}")
    return (f"ilsvrc: left out, for ILSVRC has no such class: {listed(absent, 12)}",) if absent else ()


def _coco_text(some: Sequence[Done], classes: ClassTable) -> str:
    """COCO's results; ids are numbers where all images are named by numbers, as COCO's are, else file names."""
    stems = [one.item.relative.stem for one in some]
    numbers = [int(stem) for stem in stems if re.fullmatch(r"\d{1,18}", stem, re.ASCII)]
    numbered = len({*numbers}) == len(some)
    lines = [
        json.dumps(entry)
        for place, one in enumerate(some)
        for entry in coco_results(
            one.detections, numbers[place] if numbered else one.item.relative.as_posix(), classes.ids
        )
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _csv_text(some: Sequence[Done]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for one in some:
        writer.writerows(csv_rows(one.detections, one.size, str(one.item.path), one.item.time))
    return text.getvalue()
