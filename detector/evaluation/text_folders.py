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
from detector.evaluation.rows import NUMERIC, Rows, read_numbers
from proposals.errors import UserError

NEIGHBOURS = (*IMAGE_FOLDERS, "images-optional")
"""Names of folders with the images, beside that of the text files; the last is Cartucho/mAP's."""

DIFFICULT = "difficult"
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
    count = 5 if scored else 4
    classes: list[str] = []
    texts: list[str] = []
    lines: list[int] = []
    difficult: list[int] = []
    counts: list[int] = []
    names: dict[str, str] = {}  # as written -> the class
    for path in files:
        for number, line in enumerate(_lines(path, error), 1):
            words = line.rsplit(maxsplit=count)
            name = names.get(words[0]) if len(words) == count + 1 else None
            if name is None or words[-1] == DIFFICULT:
                if not words:
                    continue
                try:
                    words, is_difficult = _words(line, scored)
                except ValueError as reason:
                    raise error(f"{path}: line {number}: {reason}") from reason
                name = names.setdefault(words[0], composed(words[0].strip()))
                difficult += [len(classes)] * is_difficult
            classes.append(name)
            texts += words[1:]
            lines.append(number)
        counts.append(len(classes))

    def problem(place: int, reason: str) -> UserError:
        row = place // count
        found = repr(" ".join([classes[row], *texts[row * count : (row + 1) * count]])[:80])
        wanted = FOUND if scored else TRUTH
        return error(f"{files[of_image[row]]}: line {lines[row]}: expected {wanted}, and {reason}; found {found}")

    of_image = np.repeat(np.arange(len(files)), np.diff([0, *counts])).astype(np.int64)
    table = read_numbers(texts, problem).reshape(-1, count)
    is_difficult_row = np.zeros(len(classes), np.bool_)
    is_difficult_row[difficult] = True
    return Rows(
        path=folder,
        images=[composed(path.relative_to(folder).with_suffix("").as_posix()) for path in files],
        files=_images(folder, files),
        sizes=np.zeros((len(files), 2), np.int64),
        of_image=of_image,
        classes=classes,
        boxes=table[:, -4:],
        scores=table[:, 0] if scored else None,
        difficult=is_difficult_row,
        forms=("xyxy", "xywh"),
        where=lambda i: f"{files[of_image[i]].relative_to(folder)} line {lines[i]}",
        last=table if scored else None,
    )


def _images(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Return the image of each text file, which need not exist, from the usual folders of images near it."""
    pairs = Counterparts(Path(folder.absolute().anchor), IMAGE_SUFFIXES, LABEL_FOLDERS, IMAGE_FOLDERS)
    neighbours = [folder.absolute().parent / name for name in NEIGHBOURS]
    near = [Files(place) for place in neighbours if place.is_dir()]
    found = []
    for path in files:
        name = path.relative_to(folder).with_suffix("").as_posix()
        image = pairs.find(path.absolute()) or next(filter(None, (other.find(name) for other in near)), None)
        found.append(image or path.with_suffix(".jpg"))
    return found


def _lines(path: Path, error: type[UserError]) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as reason:
        raise error(f"{path}: cannot be read ({(reason.strerror or str(reason)).lower()})") from reason
    except UnicodeDecodeError as reason:
        raise error(f"{path}: not a text in UTF-8 ({reason})") from reason


def _words(line: str, scored: bool) -> tuple[list[str], bool]:
    """Return the class and its numbers as texts, and whether it is difficult; raises ValueError with a reason."""
    count = 5 if scored else 4
    wanted, shown = FOUND if scored else TRUTH, repr(line.strip()[:80])
    difficult = not scored and line.split()[-1] == DIFFICULT
    words = line.rstrip().removesuffix(DIFFICULT if difficult else "").rsplit(maxsplit=count)
    if len(words) <= count:
        few = line.split()
        if len(few) == 1 and "," in line:
            raise ValueError(f"columns are separated by commas in {shown}; they are separated by blanks")
        if scored and len(few) == count and all(map(NUMERIC.fullmatch, few[1:])):
            raise ValueError(
                f"no score in {shown}; detections have {wanted} (YOLO's tools write it with save_conf=True)"
            )
        raise ValueError(f"expected {wanted}; found {shown}")
    name = words[0].split()
    is_class = name[-1].isdecimal() and (len(name) == 1 or not NUMERIC.fullmatch(name[0]))  # 7, Boeing 747
    if NUMERIC.fullmatch(name[-1]) and not is_class:
        more = "this looks like a detection with its score" if not scored else "this row has more"
        raise ValueError(f"expected {wanted}, and {more}; found {shown}")
    return words, difficult
