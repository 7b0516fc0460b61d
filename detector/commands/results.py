"""Results of the command detect for an image: a printed table, a JSON file, the annotated image.

In: the detector's ScoredImage and Detections.  Out: text, or <name>.json and <name>_detections.jpg in a folder.

A file that detect did not write, or that holds the results of another image, is never replaced: our JSON is recognised
by its keys, our image by the comment in it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from tqdm import tqdm

from detector.data.ground_truth import ClassTable
from detector.data.image import ImageError
from detector.detections import Detections
from detector.evaluation.results import class_keys
from detector.pipeline import Detector, ScoredImage
from detector.progress import progress
from proposals.errors import UserError
from proposals.files import write_whole

RECORD, PICTURE = ".json", "_detections.jpg"
MARK = b"drawn by googlenet-rcnn detect"
KEYS = ("image", "width", "height", "detections", "regions", "seconds", "model")
LONGEST_NAME = 255 - len(PICTURE)  # bytes; Linux, macOS and Windows agree
ENDS_ALL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no other image's results can be written either


class OutputError(UserError):
    """Results cannot be written where they were wanted; the message names the file."""


def detect_files(detector: Detector, paths: Sequence[Path], folder: Path) -> list[str]:
    """Detect in each file, print the table and write the results; a failure on one file does not stop the others.

    Returns:
        A line for each file that could not be read or whose results could not be written. They were printed when they
        occurred, and again at the end.

    Raises:
        OutputError: As `check_results`, before the first detection.
        OSError: The disk is full; the results written before are complete.
    """
    names = check_results(folder, paths)
    failed: list[str] = []
    bar = progress(detector.score_many(paths), "detect", total=len(paths), disable=len(paths) == 1)
    for (path, scored), name in zip(bar, names, strict=True):
        try:
            if isinstance(scored, Exception):
                raise scored
            found = scored.detections()
            record = result_record(path, scored, found, detector.classes, detector.config.models)
            write_result(folder, name, record, found.plot(scored.image))
        except (UserError, OSError) as error:
            if isinstance(error, ImageError):
                failed.append(str(error))  # it names the file
            elif not isinstance(error, OSError):
                failed.append(f"{path}: {error}")
            elif error.errno not in ENDS_ALL:
                reason = str(error.strerror or error).lower()
                failed.append(f"{path}: the results cannot be written: {reason}")
            else:
                bar.close()
                raise OSError(error.errno, error.strerror, str(folder)) from error
            tqdm.write(f"detect: {failed[-1]}", file=sys.stderr)
            continue
        tqdm.write(format_run(path, scored, found), file=sys.stdout)
    done = len(paths) - len(failed)
    tqdm.write(f"{done} of {len(paths)} images done, results in {folder}/", file=sys.stderr)
    if failed and len(paths) > 1:
        tqdm.write("\n".join(["could not be done:", *(f"  {line}" for line in failed)]), file=sys.stderr)
    return failed


def result_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for the results of each file: its stem, or as much of its path as makes it unique.

    Links are not resolved. A name that is too long for a file is cut, and ends with a hash of the whole path.

    >>> result_names([Path("a/cat.jpg"), Path("a/dog.jpg"), Path("b/dog.jpg"), Path("b/cow.jpg"), Path("b/cow.png")])
    ['cat', 'a_dog.jpg', 'b_dog.jpg', 'cow.jpg', 'cow.png']
    """
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    names = [path.stem for path in paths]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        count = Counter(map(_alike, names))
        names = [
            name if count[_alike(name)] == 1 else "_".join(part[-depth:]).lstrip(os.sep)
            for name, part in zip(names, parts, strict=True)
        ]
    count = Counter(map(_alike, names))
    return [
        name
        if count[_alike(name)] == 1 and len(os.fsencode(name)) <= LONGEST_NAME
        else _shortened(name, "/".join(part))
        for name, part in zip(names, parts, strict=True)
    ]


def _alike(name: str) -> str:
    """The same text for names that some file systems do not tell apart: by case (Windows, macOS), by Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _shortened(name: str, full: str) -> str:
    ending = f"-{hashlib.sha256(os.fsencode(full)).hexdigest()[:12]}"
    while len(os.fsencode(name + ending)) > LONGEST_NAME:
        name = name[:-1]
    return name + ending


def check_results(folder: Path, paths: Sequence[Path]) -> list[str]:
    """Check that results can be written and replace only earlier results of the same images; return their names.

    Raises:
        OutputError: The folder is a file or cannot be written, or a file to write exists and was not written by detect,
            holds the results of another image, or is one of the images.
    """
    above = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
    if not above.is_dir():
        raise OutputError(f"{above}: a file, not a folder for results; choose another --output")
    if not os.access(above, os.W_OK):
        raise OutputError(f"{above}: a folder that cannot be written; choose another --output")
    images = {os.path.realpath(path) for path in paths}
    names = result_names(paths)
    for name, path in zip(names, paths, strict=True):
        record, picture = folder / f"{name}{RECORD}", folder / f"{name}{PICTURE}"
        for target in (record, picture):
            if os.path.lexists(target) and os.path.realpath(target) in images:
                raise OutputError(
                    f"{target}: an image that the results of {path} would replace; choose another --output"
                )
        if os.path.lexists(record):
            before = _read_record(record)
            if before is None:
                raise OutputError(f"{record}: exists, and no detect wrote it; choose another --output")
            if os.path.realpath(str(before["image"])) != os.path.realpath(path):
                raise OutputError(
                    f"{record}: holds the results of {before['image']}, not of {path}; choose another --output"
                )
        if os.path.lexists(picture) and not is_result(picture):
            raise OutputError(f"{picture}: exists, and no detect wrote it; choose another --output")
    return names


def is_result(path: Path) -> bool:
    """Return whether a file is an annotated image that detect wrote."""
    if not path.name.endswith(PICTURE):
        return False
    try:
        with PIL.Image.open(path, formats=["JPEG"]) as image:
            return bool(image.info.get("comment") == MARK)
    except Exception:  # whatever makes it unreadable, no detect wrote it so
        return False


def _read_record(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file that a detect wrote; None of any other."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.keys() >= set(KEYS) else None


def format_run(path: Path, scored: ScoredImage, found: Detections) -> str:
    """Return a few lines for a person: what was found, where, and how long each stage took."""
    height, width, _ = scored.image.shape
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in scored.seconds.items())
    total = sum(scored.seconds.values())
    lines = [f"{path}  {width}×{height}, {len(scored.boxes)} regions, {total:.2f} s ({stages})"]
    if len(found):
        lines.append(f"  {'class':<14}{'score':>6}  {'x1':>6} {'y1':>6} {'x2':>6} {'y2':>6}")
        for one in found:
            lines.append(f"  {one.name:<14}{one.score:6.3f}  {' '.join(f'{corner:6.0f}' for corner in one.box)}")
    elif len(scored.boxes):
        scores = scored.scores.probabilities[:, 1:].max(axis=0)
        below = min_scores_of(scored) - scores
        best = int(below.argmin())
        name, score, needed = scored.names[best], scores[best], scores[best] + below[best]
        lines.append(
            f"  nothing above the thresholds; the nearest was {name} {score:.3f}, shown from {needed:.3f} "
            "(set suppression.min_score lower to see it)"
        )
    else:
        lines.append("  nothing: no box of this image is large enough to propose")
    return "\n".join(lines)


def result_record(
    path: Path, scored: ScoredImage, found: Detections, classes: ClassTable, models: Sequence[str]
) -> dict[str, Any]:
    """Return the content of <name>.json; boxes in px of the upright image, far edge exclusive.

    Args:
        path: The image's file.
        scored: Its regions.
        found: Its detections.
        classes: The detector's classes.
        models: Names of the detector's models.
    """
    height, width, _ = scored.image.shape
    return {
        "image": str(path),
        "width": width,
        "height": height,
        "detections": [
            {
                "label": one.name,
                "wnid": classes.wnids[one.label],
                "score": round(one.score, 6),
                "box": [round(corner, 2) for corner in one.box],
            }
            for one in found
        ],
        "min_scores": dict(
            zip(class_keys(classes), [round(one, 6) for one in min_scores_of(scored).tolist()], strict=True)
        ),
        "regions": len(scored.boxes),
        "seconds": {stage: round(seconds, 4) for stage, seconds in scored.seconds.items()},
        "model": list(models),
    }


def min_scores_of(scored: ScoredImage) -> NDArray[np.float64]:
    """Return the lowest score that is shown of each class, [K]."""
    if scored.min_scores is not None:
        return scored.min_scores
    return np.full(len(scored.names), scored.suppression.lowest)


def write_result(folder: Path, name: str, record: dict[str, Any], annotated: PIL.Image.Image) -> None:
    """Write <name>.json and <name>_detections.jpg, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    encoded = io.BytesIO()
    annotated.save(encoded, "JPEG", quality=92, comment=MARK)
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    with (
        write_whole(folder / f"{name}{RECORD}") as part,  # both are on the disk before either has its name
        write_whole(folder / f"{name}{PICTURE}") as picture,
    ):
        picture.write_bytes(encoded.getbuffer())
        part.write_bytes(text.encode(errors="backslashreplace"))  # which for half a character is JSON's own escape
