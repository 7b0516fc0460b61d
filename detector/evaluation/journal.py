"""The journal of a detection run: one line of JSON per finished image, so that an interrupted run goes on.

In: an image's Detections, as soon as they are there. Out: a file that read_results reads, exact to the last bit. Its
first line holds the settings of the run; a journal of other settings is refused: its detections are not comparable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from detector.data.ground_truth import ClassTable
from detector.detections import Detections
from detector.evaluation.results import ResultsError, class_keys

_OPENING = '{"journal": 1, "settings": '


class Journal:
    """An open journal; a context manager.

    Attributes:
        path: the file, made with its folders when there is none.
        done: ids of the images already in it.

    Raises:
        ResultsError: the file is no journal, has other settings, or is damaged before its last line.

    >>> with Journal(path, dataset.classes, {"checkpoint": "6f1c", "min_score": 0.0}) as journal:  # doctest: +SKIP
    ...     for record in dataset.records:
    ...         if record.image_id not in journal.done:
    ...             journal.append(record.image_id, detector(record.read()))
    """

    def __init__(self, path: Path, classes: ClassTable, settings: Mapping[str, object]) -> None:
        self.path = path
        self.done: set[str] = set()
        self._keys = class_keys(classes)
        header = _OPENING + json.dumps(settings) + "}\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("a+", encoding="utf-8", newline="\n")
        try:
            self._resume(header)
        except BaseException:
            self._file.close()
            raise

    def append(self, image_id: str, found: Detections) -> None:
        """Write one image's detections as a line that is complete on return.

        Raises:
            ValueError: the image is already in the journal, or a label is beyond the class table.
        """
        if image_id in self.done:
            raise ValueError(f"{self.path}: image {image_id!r} is already in the journal")
        if len(found) and (found.labels.min() < 0 or found.labels.max() >= len(self._keys)):
            raise ValueError(f"{self.path}: image {image_id!r} has a label beyond the {len(self._keys)} classes")
        line = {
            "image_id": image_id,
            "boxes": found.boxes.tolist(),
            "scores": found.scores.tolist(),
            "labels": [self._keys[label] for label in found.labels.tolist()],
        }
        self._file.write(json.dumps(line) + "\n")  # json writes a float's shortest text that reads back the same
        self._file.flush()
        self.done.add(image_id)

    def close(self) -> None:
        """Close the file; the journal can be opened again."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _resume(self, header: str) -> None:
        """Read what is done, cut off a last line that the interruption tore, and write the header if there is none."""
        content = self.path.read_bytes()
        opening = _OPENING.encode()
        if not (content.startswith(opening) or opening.startswith(content)):
            raise ResultsError(f"{self.path}: not a journal of detections, left as it is; choose another file")
        *lines, torn = content.split(b"\n")
        complete = len(content) - len(torn)
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                if number > 1:
                    self.done.add(entry["image_id"])
            except (ValueError, KeyError, TypeError) as error:
                if number < len(lines) or torn:
                    raise ResultsError(
                        f"{self.path}: line {number} is damaged; delete the file to start anew"
                    ) from error
                complete -= len(line) + 1
                break
            if number == 1:
                self._compare(entry["settings"], json.loads(header)["settings"])
        self._file.truncate(complete)
        if complete == 0:
            self._file.write(header)
            self._file.flush()

    def _compare(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        old, new = dict(_flat(before, "")), dict(_flat(now, ""))
        differ = [key for key in {**old, **new} if old.get(key, "not set") != new.get(key, "not set")]
        if differ:
            key = differ[0]
            more = f" (and {len(differ) - 1} more settings differ)" if differ[1:] else ""
            raise ResultsError(
                f"{self.path}: made with {key} = {old.get(key, 'not set')!r}, now {new.get(key, 'not set')!r}{more}. "
                "Delete the file or name another output to start anew"
            )


def _flat(settings: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """(dotted key, value) of every value that is not itself a mapping."""
    pairs: list[tuple[str, Any]] = []
    for key, value in settings.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return pairs
