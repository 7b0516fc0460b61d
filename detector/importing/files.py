"""Files of proposals of any program, by their endings.

.mat, folder  MATLAB, see mat.py
.npz          `names` [I], `counts` [I] and `boxes` [N, 4], and perhaps `scores` [N]; or an array [n, 4] or [n, 5],
              whose fifth column is the score, per image, named by it
.json         COCO results, [{"image_id", "bbox": [x, y, width, height], "score"}, ...], with or without scores; or
              the same as `annotations` beside `images`, whose file names then name the images
.csv          rows of image, four numbers and perhaps a score; a first line may name the columns
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from pathlib import Path

import msgspec
import numpy as np

from detector.evaluation.csv_text import csv_reader
from detector.evaluation.names import Name, as_text
from detector.evaluation.truth import HALF_OPEN
from detector.importing.given import Given, ProposalFileError, grouped
from detector.importing.mat import read_mat, read_mat_folder

HEADERS = {
    "xyxy": (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("left", "top", "right", "bottom")),
    "xywh": (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("left", "top", "width", "height")),
}
IMAGE_HEADERS = ("image", "image_id", "name", "filename", "file_name", "file")
SCORE_HEADERS = ("score", "confidence", "objectness")


def read_proposals(path: Path) -> Given:
    """Read a file of proposals, or a folder of MATLAB files.

    Raises:
        ProposalFileError: no such file; a file of another kind, or one that is malformed.
    """
    if path.is_dir():
        return read_mat_folder(path)
    if not path.exists():
        raise ProposalFileError(f"{path}: no such file or folder")
    readers = {".mat": read_mat, ".npz": _read_npz, ".json": _read_json, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        hint = "; convert it in the program that wrote it" if path.suffix.lower() in (".pkl", ".pickle") else ""
        raise ProposalFileError(
            f"{path}: proposals are read from {', '.join(readers)} files, or .mat in a folder{hint}"
        )
    try:
        return reader(path)
    except OSError as error:
        raise ProposalFileError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error


def _read_npz(path: Path) -> Given:
    if not zipfile.is_zipfile(path):
        raise ProposalFileError(f"{path}: not a .npz file, or damaged")
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {key: file[key] for key in file.files}
    except ValueError as error:
        raise ProposalFileError(
            f"{path}: holds pickled objects, which could run any code, or is damaged; save arrays of numbers and texts"
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ProposalFileError(f"{path}: damaged ({error})") from error
    if "boxes" not in content:
        parts = list(content.values())
        if parts and all(part.ndim == 2 and part.shape[1] == 5 for part in parts):
            return Given.of_images(path, list(content), [p[:, :4] for p in parts], [p[:, 4] for p in parts])
        return Given.of_images(path, list(content), parts, None)
    missing = [key for key in ("names", "counts") if key not in content]
    if missing:
        raise ProposalFileError(
            f"{path}: has 'boxes' and lacks {missing[0]!r}; it needs names [I], counts [I], boxes [N, 4]"
        )
    names, counts = content["names"].reshape(-1).tolist(), content["counts"].reshape(-1)
    lengths = {key: len(content[key]) for key in ("boxes", "scores") if key in content and content[key].ndim}
    whole = np.issubdtype(counts.dtype, np.integer) and (counts >= 0).all()
    if not whole or len(counts) != len(names) or {int(counts.sum())} != set(lengths.values()):
        stated = ", ".join(f"{count} {key}" for key, count in lengths.items())
        raise ProposalFileError(
            f"{path}: {len(names)} names, {len(counts)} counts that sum to {counts.sum()}, {stated}"
        )
    ends = np.cumsum(counts)[:-1]
    scores = np.split(content["scores"], ends) if "scores" in content else None
    return Given.of_images(path, names, np.split(content["boxes"], ends), scores)


class _Entry(msgspec.Struct, gc=False):
    image_id: Name
    bbox: tuple[float, float, float, float]
    score: float | None = None


class _Image(msgspec.Struct, gc=False):
    id: Name
    file_name: str | None = None


class _Annotated(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Entry]


def _read_json(path: Path) -> Given:
    content = path.read_bytes()
    try:
        entries = msgspec.json.decode(content, type=list[_Entry] | _Annotated)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProposalFileError(
            f"{path}: not a list of COCO results, nor COCO's images and annotations ({error})"
        ) from error
    named: dict[str, Name] = {}
    if isinstance(entries, _Annotated):
        for image in entries.images:
            if as_text(image.id) in named:
                raise ProposalFileError(f"{path}: 'images' has the id {as_text(image.id)} twice")
            named[as_text(image.id)] = image.file_name or image.id
        entries = entries.annotations
        strange = next((entry.image_id for entry in entries if as_text(entry.image_id) not in named), None)
        if strange is not None:
            raise ProposalFileError(
                f"{path}: an annotation is of image {as_text(strange)}, which 'images' does not list"
            )
    scored = sum(entry.score is not None for entry in entries)
    if scored not in (0, len(entries)):
        raise ProposalFileError(
            f"{path}: {scored:,} of {len(entries):,} boxes have a score; give all of them one, or none"
        )
    return grouped(
        path,
        [named.get(as_text(entry.image_id), entry.image_id) for entry in entries],
        np.array([entry.bbox for entry in entries], np.float64).reshape(-1, 4),
        np.array([entry.score for entry in entries], np.float64) if scored else None,
        "xywh",
        HALF_OPEN,
    )


def _read_csv(path: Path) -> Given:
    try:
        reader = csv_reader(path.read_text(encoding="utf-8-sig"))
        rows = [(reader.line_num, row) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ProposalFileError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    if not rows:
        raise ProposalFileError(f"{path}: is empty")
    places, columns = _header([word.strip().lower() for word in rows[0][1]], path)
    rows = rows[1:] if columns else rows
    values = []
    for number, row in rows:
        try:
            values.append([float(row[place]) for place in places[1:]])
        except (ValueError, IndexError) as error:
            raise ProposalFileError(
                f"{path}: line {number}: image, four numbers and perhaps a score, not {row}"
            ) from error
    table = np.array(values, np.float64).reshape(-1, len(places) - 1)
    scores = table[:, 4] if len(places) == 6 else None
    return grouped(path, [row[places[0]].strip() for _, row in rows], table[:, :4], scores, columns or None)


def _header(words: list[str], path: Path) -> tuple[list[int], str]:
    """Return the places of image, box and score, and the order of the box's numbers; an empty one without a header."""
    try:
        [float(word) for word in words[1:]]
    except ValueError:
        pass
    else:
        if len(words) in (5, 6):
            return list(range(len(words))), ""
        raise ProposalFileError(f"{path}: line 1: image, four numbers and perhaps a score, not {len(words)} values")
    image = next((words.index(word) for word in IMAGE_HEADERS if word in words), None)
    score = [words.index(word) for word in SCORE_HEADERS if word in words][:1]
    for columns, ways in HEADERS.items():
        for names in ways:
            if image is not None and set(names) <= set(words):
                return [image, *map(words.index, names), *score], columns
    raise ProposalFileError(
        f"{path}: line 1: columns {', '.join(words)}; needed are image, x1, y1, x2, y2 or x, y, width, height, and "
        "perhaps score"
    )
