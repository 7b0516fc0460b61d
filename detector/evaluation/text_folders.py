"""A folder with one text file an image -> Rows: the form of Cartucho/mAP, Object-Detection-Metrics and YOLO.

    ground truth   class a b c d [difficult]
    detections     class score a b c d      or, as YOLO's tools write it,  class a b c d score

A class is a name, which may hold blanks, or a number. What a, b, c and d are is found later (box_layouts.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detector.data.files import Files
from detector.data.ground_truth import composed
from detector.data.listing import IMAGE_SUFFIXES
from detector.data.trees import IMAGE_FOLDERS, LABEL_FOLDERS, Counterparts, files_below
from detector.data.yolo_layout import NAMES, lists_images
from detector.evaluation.rows import NUMERIC, Rows, number_of
from proposals.errors import UserError

NEIGHBOURS = (*IMAGE_FOLDERS, "images-optional")
"""Names of folders with the images, beside that of the text files; the last is Cartucho/mAP's."""

TRUTH = "class and four numbers"
FOUND = "class, score and four numbers"


def text_files(folder: Path) -> list[Path]:
    """Return the sorted text files below a folder, without those that list images or name classes.

    Raises:
        DataError: a folder cannot be listed.
    """
    return [path for path in files_below(folder, (".txt",)) if path.name not in NAMES and not lists_images(path)]


def read_text_folder(folder: Path, files: Sequence[Path], error: type[UserError], *, scored: bool) -> Rows:
    """Read text files, each named after its image.

    Args:
        folder: The folder.
        files: Its text files.
        error: Type of the error.
        scored: Whether rows have scores: detections, else ground truth.

    Raises:
        UserError: of the given type: a file is no text, or a line has another form; the message names both.
    """
    classes: list[str] = []
    values: list[list[float]] = []
    lines: list[int] = []
    difficult: list[bool] = []
    counts: list[int] = []
    for path in files:
        for number, line in enumerate(_lines(path, error), 1):
            if not line.strip():
                continue
            try:
                name, numbers, is_difficult = _parsed(line, scored)
            except ValueError as reason:
                raise error(f"{path}: line {number}: {reason}") from reason
            classes.append(name)
            values.append(numbers)
            lines.append(number)
            difficult.append(is_difficult)
        counts.append(len(classes))
    of_image = np.repeat(np.arange(len(files)), np.diff([0, *counts])).astype(np.int64)
    table = np.array(values, np.float64).reshape(-1, 5 if scored else 4)
    return Rows(
        path=folder,
        images=[composed(path.relative_to(folder).with_suffix("").as_posix()) for path in files],
        files=_images(folder, files),
        sizes=np.zeros((len(files), 2), np.int64),
        of_image=of_image,
        classes=classes,
        boxes=table[:, -4:],
        scores=table[:, 0] if scored else None,
        difficult=np.array(difficult, np.bool_),
        forms=("xyxy", "xywh"),
        where=lambda i: f"{files[of_image[i]].relative_to(folder)} line {lines[i]}",
        last=table if scored else None,
    )


def _images(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Return the image of each text file, which need not exist, from the usual folders of images near it."""
    pairs = Counterparts(Path(folder.absolute().anchor), IMAGE_SUFFIXES, LABEL_FOLDERS, IMAGE_FOLDERS)
    near = [Files(folder.absolute().parent / name) for name in NEIGHBOURS]
    found = []
    for path in files:
        name = path.relative_to(folder).with_suffix("").as_posix()
        places = (pairs.find(path.absolute()), *(other.find(name) for other in near))
        found.append(next(filter(None, places), path.with_suffix(".jpg")))
    return found


def _lines(path: Path, error: type[UserError]) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as reason:
        raise error(f"{path}: cannot be read ({(reason.strerror or str(reason)).lower()})") from reason
    except UnicodeDecodeError as reason:
        raise error(f"{path}: not a text in UTF-8 ({reason})") from reason


def _parsed(line: str, scored: bool) -> tuple[str, list[float], bool]:
    """Return the class, its numbers, and whether it is difficult; raises ValueError with a reason."""
    count = 5 if scored else 4
    shown = repr(line.strip()[:80])
    words = line.rsplit(maxsplit=count + 1)
    difficult = not scored and words[-1].lower() == "difficult"
    if difficult:
        line = line.rstrip()[: -len("difficult")]
    name, *texts = line.rsplit(maxsplit=count)
    name = composed(name.strip())
    if len(texts) < count:
        few = line.split()
        if len(few) == 1 and "," in line:
            raise ValueError(f"columns are separated by commas in {shown}; they are separated by blanks")
        if scored and len(few) == count and all(map(NUMERIC.fullmatch, few[1:])):
            raise ValueError(
                f"no score in {shown}; detections have {FOUND} (YOLO's tools write it with save_conf=True)"
            )
        raise ValueError(f"expected {FOUND if scored else TRUTH}; found {shown}")
    try:
        numbers = [float(text) if NUMERIC.fullmatch(text) else number_of(text) for text in texts]
    except ValueError as reason:
        raise ValueError(f"expected {FOUND if scored else TRUTH}, and {reason}; found {shown}") from reason
    first, last = name.split()[0], name.split()[-1]
    is_number, is_counted = name.isdecimal(), not NUMERIC.fullmatch(first) and last.isdecimal()  # 7, Boeing 747
    if NUMERIC.fullmatch(last) and not is_number and not is_counted:
        more = "this looks like a detection with its score" if not scored else "this row has more"
        raise ValueError(f"expected {FOUND if scored else TRUTH}, and {more}; found {shown}")
    return name, numbers, difficult
