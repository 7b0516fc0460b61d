"""What detect says of an image: a printed table, and the record, which its JSON file and a JSON line hold.

In: the detector's ScoredImage and Detections.  Out: text, or a dictionary for `json`.
The record states the image's content and the detector's settings as digests, by which --resume knows what is done.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.commands.result_names import Names
from detector.commands.sources import Source
from detector.data.ground_truth import ClassTable, listed
from detector.data.image import Image
from detector.detections import Detections
from detector.evaluation.checking import hint_at
from detector.evaluation.results import class_keys
from detector.formats import Size
from detector.model_files import file_sha256
from detector.operating_points import identity_of
from detector.pipeline import Detector, ScoredImage
from proposals.errors import UserError

KEYS = ("image", "width", "height", "detections", "regions", "seconds", "model")
"""Keys by which a record is known."""


@dataclass(eq=False)
class Item:
    """One image of a run: a file, or a frame of a video.

    Attributes:
        path: The image or the video.
        relative: Its path below its source; of a frame, that of an image with the frame's time in its name.
        name: Name of its results below the output folder, without suffix.
        number: Its position in the run, from 1.
        time: Seconds from the beginning of the video; None for an image file.
        frame: The frame's position in the video, from 0; None for an image file.
        pixels: The frame, [H, W, 3] uint8 RGB, until it is done; None for an image file.
        content: SHA-256 of the video, which all of its frames share; empty for an image file.
    """

    path: Path
    relative: PurePath
    name: str
    number: int
    time: float | None = None
    frame: int | None = None
    pixels: Image | None = None
    content: str = ""

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file; empty where it cannot be read, which its reader reports."""
        return self.content or sha256_of(self.path)

    @property
    def title(self) -> str:
        """The file, and the time of a frame."""
        return str(self.path) if self.time is None else f"{self.path} at {self.time:.3f} s"


@dataclass(frozen=True)
class Done:
    """What is known of an image that is done.

    Attributes:
        item: The image.
        size: Width and height, upright, px.
        detections: Its detections, rounded as they are written.
        record: Its record.
    """

    item: Item
    size: Size
    detections: Detections
    record: dict[str, Any]


class UnknownClass(UserError):
    """A class that the detector does not have."""


def item_of(source: Source, names: Names, number: int) -> Item:
    """Make the item of an image file."""
    relative = source.relative
    return Item(source.path, relative, names.claim(relative, str(source.path.absolute())), number)


def only_classes(detector: Detector, names: Sequence[str]) -> None:
    """Let a detector show some classes and no others, before the limit of detections counts.

    Args:
        detector: The detector, whose min_scores change.
        names: Names or WordNet ids of classes; several may be joined by commas.

    Raises:
        UnknownClass: The detector does not have one; the message names the nearest.
    """
    keys = class_keys(detector.classes)
    label_of = dict(zip(keys, range(len(keys)), strict=True)) | detector.classes.label_of
    words = [word for name in names for word in ([name] if name in label_of else name.split(","))]
    labels = []
    for word in map(str.strip, words):
        if word not in label_of:
            hint = hint_at(word, keys)
            if os.path.lexists(word):
                hint = " It is a file: files stand before --classes."
            raise UnknownClass(f"--classes: no class {word!r}.{hint}\nthere are {listed(keys, 30)}")
        labels.append(label_of[word])
    shown = detector.min_scores
    if shown is None:
        shown = np.full(len(keys), detector.config.suppression.lowest)
    detector.min_scores = np.where(np.isin(np.arange(len(keys)), labels), shown, np.inf)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; empty where it cannot be read, or is a pipe, which could be read only once."""
    try:
        return file_sha256(path) if path.is_file() else ""
    except OSError:
        return ""


def settings_digest(detector: Detector) -> str:
    """Return the digest of all that decides what a detector finds in an image, besides rounding on another device."""
    parts = [
        identity_of(detector.config, detector.members, detector.rejection),
        None if detector.min_scores is None else detector.min_scores.tolist(),
        [detector.config.suppression.min_score, detector.config.suppression.limit, detector.precision],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def format_run(title: str, scored: ScoredImage, found: Detections) -> str:
    """Return a few lines for a person: what was found, where, and how long each stage took."""
    height, width, _ = scored.image.shape
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in scored.seconds.items())
    total = sum(scored.seconds.values())
    lines = [f"{title}  {width}×{height}, {len(scored.boxes)} regions, {total:.2f} s ({stages})"]
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
            f"(--score {max(score - 0.01, 0.001):.2g} shows it)"
        )
    else:
        lines.append("  nothing: no box of this image is large enough to propose")
    return "\n".join(lines)


def result_record(
    item: Item, scored: ScoredImage, found: Detections, classes: ClassTable, models: Sequence[str], settings: str
) -> dict[str, Any]:
    """Return the record of an image; boxes in px of the upright image, far edge exclusive.

    Args:
        item: The image.
        scored: Its regions.
        found: Its detections, rounded.
        classes: The detector's classes.
        models: Names of the detector's models.
        settings: The detector's `settings_digest`.
    """
    height, width, _ = scored.image.shape
    wanted = {key: score for key, score in zip(class_keys(classes), min_scores_of(scored).tolist(), strict=True)}
    frame = {} if item.frame is None else {"time": item.time, "frame": item.frame}
    return {
        "image": str(item.path),
        **frame,
        "width": width,
        "height": height,
        "detections": [
            {"label": one.name, "wnid": classes.wnids[one.label], "score": one.score, "box": list(one.box)}
            for one in found
        ],
        "min_scores": {key: round(score, 6) for key, score in wanted.items() if np.isfinite(score)},
        "regions": len(scored.boxes),
        "seconds": {stage: round(seconds, 4) for stage, seconds in scored.seconds.items()},
        "model": list(models),
        "image_sha256": item.sha256,
        "settings_sha256": settings,
    }


def detections_of(record: Mapping[str, Any], classes: ClassTable) -> Detections:
    """Return the detections of a record.

    Raises:
        LookupError, TypeError, ValueError: The record is damaged.
    """
    some = record["detections"]
    boxes = np.array([one["box"] for one in some], np.float64).reshape(-1, 4)
    labels = np.array([classes.label_of[one["wnid"] or one["label"]] for one in some], np.int64)
    return Detections(boxes, np.array([one["score"] for one in some], np.float64), labels, classes.names)


def min_scores_of(scored: ScoredImage) -> NDArray[np.float64]:
    """Return the lowest score that is shown of each class, [K]; infinite for a class that is not wanted."""
    if scored.min_scores is not None:
        return scored.min_scores
    return np.full(len(scored.names), scored.suppression.lowest)


def json_text(content: Any, indent: int | None = None) -> str:
    """Return JSON in one line, or with an indent; a file name that is no UTF-8 keeps its bytes as escapes."""
    return json.dumps(content, indent=indent, ensure_ascii=False).encode(errors="backslashreplace").decode()
