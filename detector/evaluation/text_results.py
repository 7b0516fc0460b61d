"""Detections in the texts of two contests -> checked detections.

    ILSVRC          lines "image-number det-id confidence x1 y1 x2 y2" of the devkit
    PASCAL VOC      files comp4_det_SPLIT_CLASS.txt: lines "image confidence x1 y1 x2 y2"

D detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.evaluation.checking import Raw, Results, checked
from detector.evaluation.names import UNKNOWN, Names, as_text
from detector.evaluation.results import ResultsError
from detector.evaluation.rows import NUMERIC
from detector.evaluation.truth import ILSVRC, VOC, Truth
from detector.evaluation.voc_names import labels_of_files

ILSVRC_COLUMNS = ("image number", "class number", "confidence", "x1", "y1", "x2", "y2")
VOC_COLUMNS = ("image", "confidence", "x1", "y1", "x2", "y2")
BLANK, NEWLINE = b" \n"
COMMAS = bytes.maketrans(b" \n", b",,")
BLOCK = 2**24  # bytes
EXACT = 2.0**53
"""From here on float64 does not distinguish all whole numbers."""


def read_submission(path: Path, truth: Truth) -> Results:
    """Read a submission to ILSVRC.

    Raises:
        ResultsError: the images of the truth have no numbers; a line of another form; a check failed (checking.py).
    """
    columns = _columns(path)
    if truth.numbers is None:
        raise ResultsError(
            f"{path}: names images by ILSVRC's numbers, and those of {truth.name} have none; "
            "write COCO results or lines of JSON instead"
        )
    numbers, ids = columns[:, 0], columns[:, 1]
    if (np.abs(numbers) < EXACT).all():
        order = np.argsort(truth.numbers)
        position = np.minimum(np.searchsorted(truth.numbers[order], numbers), len(order) - 1)
        image_index = np.where(truth.numbers[order][position] == numbers, order[position], UNKNOWN)
    else:
        index_of = {str(number): index for number, index in truth.index_of_number.items()}
        texts = np.loadtxt(path, dtype=np.str_, comments=None, usecols=0, ndmin=1, encoding="utf-8-sig").tolist()
        image_index = np.array([index_of.get(text, UNKNOWN) for text in texts], np.int64)
    label_of = np.full(max(truth.classes.ids) + 1, -1, np.int64)
    label_of[list(truth.classes.ids)] = np.arange(len(truth.classes))
    whole = (ids == np.floor(ids)) & (ids >= 0) & (ids < len(label_of))

    def describe(row: int) -> tuple[str, str]:
        with path.open(encoding="utf-8-sig") as file:
            filled = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            number, line = next(islice(filled, row, None))
        return f"line {number}", line.split()[0]

    raw = Raw(
        path,
        describe=describe,
        image_index=image_index,
        labels=np.where(whole, label_of[np.where(whole, ids, 0).astype(np.int64)], -1),
        class_name=lambda i: as_text(ids[i].item()),
        given=np.ascontiguousarray(columns[:, 3:]),
        scores=np.ascontiguousarray(columns[:, 2]),
        convention=ILSVRC,
        known_classes=[f"{min(truth.classes.ids)} to {max(truth.classes.ids)}"],
    )
    return checked(raw, truth)


def _columns(path: Path) -> NDArray[np.float64]:
    """Read a text of numbers, [lines, 7]; a message names the first bad line and counts them."""
    plain = _plain_file(path, len(ILSVRC_COLUMNS))
    if plain is not None:
        return plain
    try:
        columns = np.loadtxt(path, dtype=np.float64, comments=None, ndmin=2, encoding="utf-8-sig")
        if columns.shape[1] == len(ILSVRC_COLUMNS):
            return columns
        problem = f"has {columns.shape[1]} columns"
    except (ValueError, UnicodeDecodeError) as error:
        problem = f"cannot be read as numbers ({error})"
    bad: list[tuple[int, str]] = []
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            words = line.split()
            if words and (len(words) != len(ILSVRC_COLUMNS) or not all(map(NUMERIC.fullmatch, words))):
                bad.append((number, line.strip()[:80]))
    if bad:
        more = f" ({len(bad):,} such lines)" if bad[1:] else ""
        expected = f"expected {len(ILSVRC_COLUMNS)} numbers, {', '.join(ILSVRC_COLUMNS)}"
        problem = f"line {bad[0][0]}: {expected}; found {bad[0][1]!r}{more}"
    raise ResultsError(f"{path}: {problem}")


def read_comp4(path: Path, files: Sequence[Path], truth: Truth) -> Results:
    """Read a submission to PASCAL VOC, one file a class; `path` is their folder or the one file.

    Raises:
        ResultsError: a file's name has no class, a line has another form, or a check failed (checking.py).
    """
    names = Names(truth)
    parts: list[tuple[Path, list[str], NDArray[np.int64], NDArray[np.float64]]] = []
    labels: list[int] = []
    for file, label in labels_of_files(files, names.classes, truth).items():
        try:
            lines = file.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ResultsError(f"{file}: not a text in UTF-8 ({error})") from error
        images, line_numbers, numbers = _plain_lines(lines) or _any_lines(lines, file)
        parts.append((file, images, line_numbers, numbers))
        labels += [label] * len(images)
    starts = np.cumsum([0, *(len(part[1]) for part in parts)])
    columns = np.concatenate([np.zeros((0, 5)), *(part[3] for part in parts)])
    every = [image for part in parts for image in part[1]]

    def describe(row: int) -> tuple[str, str]:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{parts[part][0].name} line {parts[part][2][row - starts[part]]}", every[row]

    raw = Raw(
        path,
        describe=describe,
        image_index=names.images(every),
        labels=np.array(labels, np.int64),
        class_name=labels.__getitem__,
        given=np.ascontiguousarray(columns[:, 1:]),
        scores=np.ascontiguousarray(columns[:, 0]),
        convention=VOC,
        known_classes=list(names.classes),
    )
    results = checked(raw, truth)
    absent = sorted({*range(len(truth.classes))} - {*labels})
    if path.is_dir() and absent:
        note = f"{path}: {len(absent)} of {len(truth.classes)} classes have no detections (first: "
        return Results(results.table, (*results.warnings, f"{note}{truth.classes.names[absent[0]]})"))
    return results


def _plain_lines(lines: Sequence[str]) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]] | None:
    """Return images, line numbers and numbers [D, 5] of lines with single blanks; None where they are another form."""
    parts = [line.partition(" ") for line in (lines if lines[-1] else lines[:-1])]
    numbers = _plain_numbers("".join([f"{part[2]}\n" for part in parts]).encode(), len(VOC_COLUMNS) - 1)
    return None if numbers is None else ([part[0] for part in parts], np.arange(1, len(parts) + 1), numbers)


def _any_lines(lines: Sequence[str], file: Path) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
    """Return images, line numbers and numbers [D, 5] of lines whose last five words are numbers."""
    rows: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            words = line.rsplit(maxsplit=len(VOC_COLUMNS) - 1)  # the name in front may contain blanks
            if len(words) != len(VOC_COLUMNS) or not all(map(NUMERIC.fullmatch, words[1:])):
                raise ResultsError(
                    f"{file}: line {number}: expected {', '.join(VOC_COLUMNS)}; found {line.strip()[:80]!r}"
                )
            rows.append((number, words))
    numbers = np.array([[float(word) for word in words[1:]] for _, words in rows], np.float64).reshape(-1, 5)
    return [words[0] for _, words in rows], np.array([number for number, _ in rows], np.int64), numbers


# ---- numbers


def _plain_numbers(text: bytes, width: int) -> NDArray[np.float64] | None:
    """Read lines of numbers that single blanks separate, [lines, width]; None where the text has another form.

    JSON's decoder reads numbers several times as fast as float(). A line ends where its blanks are counted, so that no
    line is short and the next one long.
    """
    signs = np.frombuffer(text, np.uint8)
    signs = signs[(signs == BLANK) | (signs == NEWLINE)]
    if len(signs) % width or not text.endswith(b"\n") or b"," in text:
        return None
    ends = signs.reshape(-1, width) == NEWLINE
    if ends[:, :-1].any() or not ends[:, -1].all():
        return None
    try:
        numbers = msgspec.json.decode(b"[" + text[:-1].translate(COMMAS) + b"]", type=list[float])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return np.array(numbers, np.float64).reshape(-1, width)


def _plain_file(path: Path, width: int) -> NDArray[np.float64] | None:
    """Read a file as _plain_numbers does, a block at a time, so that its text never is in memory at once."""
    blocks = [np.zeros((0, width))]
    with path.open("rb") as file:
        while block := file.read(BLOCK) + file.readline():
            numbers = _plain_numbers(block if block.endswith(b"\n") else block + b"\n", width)
            if numbers is None:
                return None
            blocks.append(numbers)
    return np.concatenate(blocks)
