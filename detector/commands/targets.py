"""Check, before the work, that a file which a command was told to write replaces nothing else.

An existing file is recognised by its beginning; an empty one, or no regular file (/dev/stdout), is accepted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from proposals.errors import UserError

TABLES = {
    "classes": b"class,name,ap,",
    "thresholds": b"class,score,low,",
    "errors": b"error,number,gain",
    "causes": b"class,score,objects,",
    "confusion": b"object,detected_as,",
    "sizes": b"size,low_px,",
    "slices": b"column,value,images,",
    "calibration": b"class,low_score,",
    "label_errors": b"kind,image,class,",
    "comparison": b"first,second,class,",
}
"""Beginnings of the tables of an evaluation, by the stem of the file (detector.report.tables)."""
BEGINNINGS: dict[str, bytes] = {
    "a report": rb'\{\n  "protocol": "(ilsvrc|voc|voc07|coco|all)"',
    "a page": rb"\s*<!doctype html>.{0,400}<title>.{0,400}: mean AP ",
    "a trace": rb"\s*<!doctype html>.{0,400}<title>.{0,400}: inside an R-CNN</title>",
    "a page of proposals": rb"\s*<!doctype html>.{0,400}<title>.{0,400}: coverage of proposals</title>",
    "proposal coverage": rb'\{\n  "data": .{1,300}?,\n  "images": ',
    "a CSV table": b"|".join(TABLES.values()),
    "a checkup": rb'\{\n  "doctor": 1,',
    "a benchmark": rb'\{\n  "data": .{1,300}?,\n  "contestants": ',
    "a table": rb'\{\n  "config": \{|\d+ images, (voc|voc07|ilsvrc), IoU ',
    "curves": rb"\x89PNG.{1,200}Software\x00Matplotlib|%PDF-1\.4\n%\xac\xdc \xab\xba|"
    rb"(<\?xml|%!PS-Adobe).{1,2000}Matplotlib v",
    "detections": rb'\[\n(\{"image_id": |\n?\])|\d+ \d+ [-+.e\d]+( [-+.e\d]+){4}\n',
    "predictions": rb"PK\x03\x04.{26}models\.npy",
    "weights": rb'.{8}\{"__metadata__":\{.{0,100000}googlenet-rcnn ',
    "an ONNX model": rb"\x08.\x12\x07pytorch",
}
"""Patterns of the beginnings of what the commands write, by kind; DOTALL."""
BEGINNING_BYTES = 1 << 17


class TargetError(UserError):
    """A file may not be written; the message names it."""


def check_target(path: Path | None, kind: str, inputs: Iterable[str | Path | None] = ()) -> None:
    """Check that a file can be written and replaces nothing but an earlier one of its kind.

    Args:
        path: The file; None is accepted.
        kind: A key of BEGINNINGS.
        inputs: Files that the command reads; None among them is ignored.

    Raises:
        TargetError: It is a folder, its folder cannot be made, it is one of the inputs, or it holds something else.
    """
    if path is None:
        return
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise TargetError(f"{path}: cannot be written: {above} is a file, not a folder")
    if path.is_dir():
        raise TargetError(f"{path}: a folder; {kind} is written to a file")
    if not path.is_file() or path.stat().st_size == 0:
        return
    for name in inputs:
        if name is not None and os.path.exists(name) and os.path.samefile(name, path):
            raise TargetError(f"{path}: would replace what this command reads; name another file")
    with path.open("rb") as file:
        beginning = file.read(BEGINNING_BYTES)
    if not re.match(BEGINNINGS[kind], beginning, re.DOTALL | re.IGNORECASE):
        raise TargetError(f"{path}: exists and is not {kind} that this command wrote; name another file or remove it")


def check_apart(paths: Iterable[Path | None]) -> None:
    """Check that no two results of a command go to the same file.

    A pipe or a device (/dev/stdout) may take several; None is ignored.

    Raises:
        TargetError: Two paths are the same file.
    """
    seen: set[str] = set()
    for path in paths:
        if path is None or (path.exists() and not path.is_file() and not path.is_dir()):
            continue
        real = os.path.realpath(path)
        if real in seen:
            raise TargetError(f"{path}: two results of this command would be written there; name two files")
        seen.add(real)
