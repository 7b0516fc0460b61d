"""The journal of a detection run: one line of JSON per finished image, so that an interrupted run resumes.

In: the Detections of an image.  Out: a file that read_results reads, exact to the last bit. Its first line contains the
settings that determine the numbers; a journal with other settings is rejected, because its detections are not
comparable. A line that was cut off by a kill or a full disk is dropped when the journal is opened again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from detector.data.ground_truth import ClassTable
from detector.detections import Detections
from detector.evaluation.results import ResultsError, class_keys
from proposals.files import write_whole
from proposals.locking import InUseError, Lock

IMAGES = "data.images."  # prefix of the settings that are digests of images
_OPENING = '{"journal": 1, "settings": '


class Journal:
    """An open journal; a context manager.

    Attributes:
        path: The file, created with its folders if it does not exist.
        done: Ids of the images in the journal.

    Raises:
        ResultsError: the file is not a journal, has other settings, or another process is writing it.

    >>> with Journal(path, dataset.classes, {"checkpoint": "6f1c", "min_score": 0.0}) as journal:  # doctest: +SKIP
    ...     for record in dataset.records:
    ...         if record.image_id not in journal.done:
    ...             journal.append(record.image_id, detector(record.read()))
    """

    def __init__(self, path: Path, classes: ClassTable, settings: Mapping[str, object]) -> None:
        self.path = path
        self.done: set[str] = set()
        self._keys = class_keys(classes)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = Lock(path.with_name(f".{path.name}.lock"))
        except InUseError as error:
            raise ResultsError(f"{path}: another process is writing it; let it finish, or name another run") from error
        try:
            path.touch()
            check_journals([path], settings)
            self._resume(_OPENING + json.dumps(settings) + "}\n")
            self._file: IO[str] = path.open("a", encoding="utf-8", newline="\n")
        except BaseException:
            self._lock.release()
            raise

    def append(self, image_id: str, found: Detections) -> None:
        """Write the detections of one image as one line.

        Raises:
            ValueError: the image is already in the journal, or a label is not in the class table.
        """
        if image_id in self.done:
            raise ValueError(f"{self.path}: image {image_id!r} is already in the journal")
        if len(found) and not 0 <= found.labels.min() <= found.labels.max() < len(self._keys):
            raise ValueError(f"{self.path}: image {image_id!r} has a label beyond the {len(self._keys)} classes")
        line = {
            "image_id": image_id,
            "boxes": found.boxes.tolist(),
            "scores": found.scores.tolist(),
            "labels": [self._keys[label] for label in found.labels.tolist()],
        }
        self._file.write(json.dumps(line) + "\n")  # json writes the shortest text that reads back as the same float
        self._file.flush()
        self.done.add(image_id)

    def close(self) -> None:
        """Close the file, so that the journal can be opened again."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resume(self, header: str) -> None:
        """Read which images are done, drop lines that were cut off, and write the header if there is none."""
        content = self.path.read_bytes()
        if not (content.startswith(_OPENING.encode()) or _OPENING.encode().startswith(content)):
            raise ResultsError(f"{self.path}: not a journal of detections and left unchanged; choose another file")
        first, *lines = content.split(b"\n")
        kept = [header.encode().removesuffix(b"\n")]
        if lines and json.loads(first) == json.loads(header):
            kept = [first]
        for line in lines[:-1]:  # after the last line break nothing is complete
            image_id = _image_of(line)
            if image_id is not None and image_id not in self.done:
                self.done.add(image_id)
                kept.append(line)
        whole = b"\n".join([*kept, b""])
        if whole != content:
            with write_whole(self.path) as path:
                path.write_bytes(whole)


def check_journals(paths: Sequence[Path], settings: Mapping[str, object], others: Sequence[Path] = ()) -> None:
    """Reject the journals of a run that were made with other settings, all of them in one message.

    Args:
        paths: Journals, which need not exist.
        settings: Settings of the run. The digest of an image counts only in a journal that has a line for it.
        others: Further files of the run.

    Raises:
        ResultsError: a journal has other settings; the message names every file to delete.
    """
    now = dict(_flat(json.loads(json.dumps(settings)), ""))
    for path in paths:
        before = _settings_of(path)
        if before is None:
            continue
        old = dict(_flat(before, ""))
        differ = [key for key in {**old, **now} if old.get(key, "not set") != now.get(key, "not set")]
        if differ and all(key.startswith(IMAGES) for key in differ):
            with path.open("rb") as file:
                done = set(map(_image_of, file))
            differ = [key for key in differ if key.removeprefix(IMAGES) in done]  # others may have been repaired
        if differ:
            key = differ[0]
            more = f" (and {len(differ) - 1} more settings differ)" if differ[1:] else ""
            files = ", ".join(str(file) for file in (*paths, *others) if file.is_file())
            raise ResultsError(
                f"{path}: made with {key} = {old.get(key, 'not set')!r}, now {now.get(key, 'not set')!r}{more}. "
                f"Name another output, or delete {files} to start anew"
            )


def _settings_of(path: Path) -> Mapping[str, Any] | None:
    """Read the settings in a journal's first line; None where there is no journal or that line is incomplete."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        line = file.readline()
    if not (line.startswith(_OPENING.encode()) and line.endswith(b"\n")):
        return None
    try:
        settings = json.loads(line)["settings"]
    except (ValueError, KeyError) as error:
        raise ResultsError(f"{path}: line 1 is damaged; delete the file to start anew") from error
    return settings if isinstance(settings, Mapping) else {}


def _image_of(line: bytes) -> str | None:
    """Read the image id of a line; None where the line is damaged."""
    try:
        entry = json.loads(line)
        boxes, scores, labels = (entry[key] for key in ("boxes", "scores", "labels"))
        return entry["image_id"] if len(boxes) == len(scores) == len(labels) else None
    except (ValueError, KeyError, TypeError):
        return None


def _flat(settings: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Flatten nested mappings to a list of (dotted key, value)."""
    pairs: list[tuple[str, Any]] = []
    for key, value in settings.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return pairs
