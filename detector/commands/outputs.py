"""The files of a run of detect: which there are in each format, and that none replaces what is not detect's own.

    OUTPUT/NAME.json, OUTPUT/NAME_detections.jpg                   json, annotated pictures
    OUTPUT/Annotations/NAME.xml                                    voc
    OUTPUT/labels/NAME.txt, OUTPUT/classes.txt, OUTPUT/data.yaml   yolo
    OUTPUT/labelme/NAME.json                                       labelme
    OUTPUT/detections.coco.json, OUTPUT/detections.csv             coco, csv: one file of the run
    OUTPUT/detections.ilsvrc.txt, OUTPUT/images.ilsvrc.txt         ilsvrc: one file of the run, and the images' numbers
    OUTPUT/crops/CLASS/NAME_1.jpg                                  crops, numbered by score
    OUTPUT/images/NAME.jpg                                         frames of videos, for voc, yolo and labelme

The annotated image is known by a comment in it, a record by its keys, the others by the folder's journal (written.py).
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

from detector.commands.results import KEYS, Done, Item, json_text
from detector.commands.run_files import RUN_FILES, run_files
from detector.commands.written import MARK, OutputError, Written, is_result
from detector.data.ground_truth import ClassTable
from detector.data.image import Image
from detector.evaluation.voc_names import quoted
from detector.formats import (
    labelme_json,
    voc_xml,
    yolo_txt,
)
from proposals.files import write_whole

RECORD, PICTURE = ".json", "_detections.jpg"
LABELS = ("voc", "yolo", "labelme")
"""Formats that label an image file, for which a frame needs one."""


@dataclass(frozen=True)
class Wanted:
    """What a run writes.

    Attributes:
        formats: Among json, coco, voc, yolo, labelme, csv and ilsvrc.
        pictures: Whether annotated pictures are written.
        crops: Whether each detection is cut out.
        confidence: Whether labels that have no place for a score state it all the same.
    """

    formats: tuple[str, ...] = ("json",)
    pictures: bool = True
    crops: bool = False
    confidence: bool = False


class Outputs:
    """Writes the files of a run.

    Args:
        folder: Folder of the results; it is made with the first of them.
        wanted: What is written.
        inputs: Real paths of the images of the run that are known beforehand, none of which is replaced.

    Raises:
        OutputError: The folder is a file or cannot be written, or a file of the run exists that no detect wrote.
    """

    def __init__(self, folder: Path, wanted: Wanted, inputs: Iterable[str] = ()) -> None:
        self.folder, self.wanted = folder, wanted
        self._inputs = set(inputs)
        above = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
        if not above.is_dir():
            raise OutputError(f"{above}: a file, not a folder for results; choose another --output")
        if not os.access(above, os.W_OK):
            raise OutputError(f"{above}: a folder that cannot be written; choose another --output")
        self._written = Written(folder)
        for name in (name for kind in wanted.formats for name in RUN_FILES.get(kind, ())):
            self._written.check(name, "")
        self._found: list[Done] = []

    def check(self, item: Item) -> None:
        """Check that the results of an image replace only its own earlier results.

        Raises:
            OutputError: A file to write exists and was not written by detect, was changed since, holds the results of
                another image, or is one of the images.
        """
        image = os.path.realpath(item.path)
        targets = list(self._files(item))
        if self.wanted.pictures:
            targets.append(item.name + PICTURE)
        for target in (self.folder / name for name in targets):
            if os.path.lexists(target) and os.path.realpath(target) in {*self._inputs, image}:
                raise OutputError(
                    f"{target}: an image that the results of {item.path} would replace; choose another --output"
                )
        for kind, name in self._kinds(item):
            if kind != "json":
                self._written.check(name, image)
        if "json" in self.wanted.formats:
            self._check_record(item)
        picture = self.folder / (item.name + PICTURE)
        if self.wanted.pictures and os.path.lexists(picture) and not is_result(picture):
            raise OutputError(f"{picture}: exists, and no detect wrote it; choose another --output")

    def record_of(self, item: Item) -> dict[str, Any] | None:
        """Return the record of an image that an earlier run wrote; None where there is none."""
        return _read_record(self.folder / (item.name + RECORD))

    def write(self, found: Done, image: Callable[[], Image], *, again: bool = True) -> None:
        """Write the files of an image, each whole or not at all.

        Args:
            found: What was found in it.
            image: Returns it, [H, W, 3] uint8 RGB.
            again: Whether pictures and records that exist are written again; other files are where they differ.

        Raises:
            OutputError: As `check`.
            OSError: A file cannot be written.
        """
        item, wanted = found.item, self.wanted
        real = os.path.realpath(item.path)
        contents = {name: self._content(kind, found, image) for kind, name in self._kinds(item) if kind != "json"}
        picture, record = self.folder / (item.name + PICTURE), self.folder / (item.name + RECORD)
        whole: dict[Path, bytes] = {}
        if wanted.pictures and (again or not picture.exists()):
            whole[picture] = _jpeg(found.detections.plot(image()), 92)
        if "json" in wanted.formats and again:
            whole[record] = (json_text(found.record, 1) + "\n").encode()
        if wanted.crops:
            crops = self._crop_names(found)
            for name, one in zip(crops, found.detections, strict=True):
                if again or not (self.folder / name).exists():
                    contents[name] = _jpeg(_cut(image(), one.box), 95)
            self._written.remove_others({*crops}, real, rf"crops/[^/]+/{re.escape(item.name)}_\d+\.jpg")
        if whole:
            (self.folder / item.name).parent.mkdir(parents=True, exist_ok=True)
        self._write_whole(list(whole.items()))
        for name, content in contents.items():
            self._written.write(name, content, real)
        if {"coco", "csv", "ilsvrc"} & {*wanted.formats}:
            self._found.append(found)

    def finish(self, classes: ClassTable) -> None:
        """Write the files of the run, with all images so far, in their order.

        Raises:
            OutputError, OSError: As `write`.
        """
        some = sorted(self._found, key=lambda found: found.item.number)
        for kind in self.wanted.formats:
            for name, text in run_files(kind, some, classes).items():
                self._written.write(name, text.encode(errors="backslashreplace"), "")

    def _kinds(self, item: Item) -> list[tuple[str, str]]:
        """Format and name of each file of an image, besides pictures."""
        names = {
            "json": item.name + RECORD,
            "voc": f"Annotations/{item.name}.xml",
            "yolo": f"labels/{item.name}.txt",
            "labelme": f"labelme/{item.name}.json",
        }
        found = [(kind, names[kind]) for kind in self.wanted.formats if kind in names]
        if item.frame is not None and {*LABELS} & {*self.wanted.formats}:
            found.append(("frame", f"images/{item.name}.jpg"))
        return found

    def _files(self, item: Item) -> list[str]:
        return [name for _, name in self._kinds(item)]

    def _content(self, kind: str, found: Done, image: Callable[[], Image]) -> bytes:
        item, (detections, size), confidence = found.item, (found.detections, found.size), self.wanted.confidence
        path = self.folder.absolute() / "images" / f"{item.name}.jpg" if item.frame is not None else item.path
        if kind == "frame":
            return _jpeg(PIL.Image.fromarray(image()), 95)
        if kind == "voc":
            text = voc_xml(detections, size, path.absolute().as_posix(), confidence=confidence)
        elif kind == "yolo":
            text = yolo_txt(detections, size, confidence=confidence)
        else:
            folder = (self.folder / "labelme" / item.name).parent
            where = os.path.relpath(os.path.realpath(path.parent), os.path.realpath(folder))
            content = labelme_json(detections, size, (Path(where) / path.name).as_posix(), confidence=confidence)
            text = json_text(content, 2) + "\n"
        return text.encode(errors="backslashreplace")

    def _crop_names(self, found: Done) -> list[str]:
        keys = [quoted(one.name) for one in found.detections]
        keys = [key if key.strip(".") else key.replace(".", "%2E") for key in keys]
        return [f"crops/{key}/{found.item.name}_{number}.jpg" for number, key in enumerate(keys, 1)]

    def _check_record(self, item: Item) -> None:
        record = self.folder / (item.name + RECORD)
        if not os.path.lexists(record):
            return
        before = _read_record(record)
        if before is None:
            raise OutputError(f"{record}: exists, and no detect wrote it; choose another --output")
        if os.path.realpath(str(before["image"])) != os.path.realpath(item.path):
            raise OutputError(
                f"{record}: holds the results of {before['image']}, not of {item.path}; choose another --output"
            )

    def _write_whole(self, contents: list[tuple[Path, bytes]]) -> None:
        """Write files, all of which are on the disk before any has its name."""
        if contents:
            path, content = contents[0]
            with write_whole(path) as part:
                part.write_bytes(content)
                self._write_whole(contents[1:])


def _jpeg(image: PIL.Image.Image, quality: int) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality, comment=MARK)
    return encoded.getvalue()


def _cut(image: Image, box: tuple[float, float, float, float]) -> PIL.Image.Image:
    """Cut a box out of an image, rounded outwards to at least a pixel."""
    height, width, _ = image.shape
    x1, y1 = min(int(box[0]), width - 1), min(int(box[1]), height - 1)
    x2, y2 = max(x1 + 1, -int(-box[2] // 1)), max(y1 + 1, -int(-box[3] // 1))
    return PIL.Image.fromarray(image[y1:y2, x1:x2])


def _read_record(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file that a detect wrote; None of any other."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.keys() >= {*KEYS} else None
