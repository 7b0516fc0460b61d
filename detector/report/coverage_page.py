"""A comparison of proposal methods as one self-contained page of HTML: no network, no script, no second file.

In: a Bench and its config.  Out: a file; the same arguments and command line give the same bytes. Curves are drawn in
coverage_plots.py. Layout and texts: coverage.html.jinja.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.config import to_yaml
from detector.data.image import ImageError, read_image
from detector.report.coverage import GOAL, Bench, Case, Part, fastest
from detector.report.coverage_files import SUFFIX
from detector.report.coverage_plots import CURVES, looks, panels
from detector.report.coverage_text import keys_of, number, sentences, spread
from detector.report.pictures import thumbnail
from detector.report.rendering import command_line, versions, without_folders, write_rendered

SIDE = 440  # px, longest side of a picture
LEAST = 120  # px of the image, least side of the part that is shown where the image is as large

Box = tuple[float, float, float, float]
"""x, y, width, height, px of the thumbnail."""


@dataclass(frozen=True)
class PartTable:
    """Recall of parts of the objects, methods by parts.

    Attributes:
        title: What the parts are.
        parts: Names of the parts, and their numbers of objects.
        rows: Parts, keyed by method; None where a reference was made with other ones.
    """

    title: str
    parts: Mapping[str, int]
    rows: Mapping[str, Sequence[Part | None]]


@dataclass(frozen=True)
class CasePicture:
    """An object in its surroundings, with the best box of each method.

    Attributes:
        case: The object.
        size: Width and height of the object, px of the image.
        width: Width of the picture, px.
        height: Its height.
        source: JPEG as a data URI; empty where the image cannot be read.
        problem: Reason why the image cannot be read.
        frame: The object.
        boxes: Box and IoU, keyed by method, the best last; the box is None where a method has none.
    """

    case: Case
    size: tuple[float, float]
    width: float
    height: float
    source: str
    problem: str
    frame: Box
    boxes: Mapping[str, tuple[Box | None, float]]


def write_coverage_page(path: Path, bench: Bench, config: object) -> None:
    """Write the page.

    Args:
        path: The file; its folder is created if needed.
        bench: The comparison.
        config: Its settings.

    Raises:
        OSError: the file cannot be written.
    """
    rows = bench.all_rows
    write_rendered(
        path,
        "coverage.html.jinja",
        bench=bench,
        rows=rows,
        looks=looks(bench),
        panels=panels(bench),
        curves=[(curve, keys_of(getattr(row, curve.values) for row in rows.values())) for curve in CURVES],
        parts=_part_tables(bench),
        classes=_classes(bench),
        missed=[_picture(case) for case in bench.missed_cases],
        alone={name: [_picture(case) for case in cases] for name, cases in bench.alone_cases.items()},
        fastest=fastest(bench.rows, GOAL),
        goal=GOAL,
        suffix=SUFFIX,
        share=number,
        spread=spread,
        sentences=sentences(bench)[1:],
        settings=re.sub(r"(?<=: |- )/.*", lambda found: without_folders(found[0]), to_yaml(config)),
        versions=versions("googlenet-rcnn"),
        command=command_line(),
    )


def _part_tables(bench: Bench) -> list[PartTable]:
    tables = []
    for title, attribute in (
        ("By size: square root of the area", "by_size"),
        ("By shape: width / height", "by_aspect"),
        ("By classes that a learned source has seen or not", "by_seen"),
    ):
        first: Mapping[str, Part] = getattr(next(iter(bench.rows.values())), attribute)
        if first:
            rows = {name: [getattr(row, attribute).get(key) for key in first] for name, row in bench.all_rows.items()}
            tables.append(PartTable(title, {key: part.objects for key, part in first.items()}, rows))
    return tables


def _classes(bench: Bench) -> list[tuple[str, int, list[Part | None], list[float | None]]]:
    """Return name, number of objects, and each method's recall and ABO of the classes with objects, worst first."""
    rows = list(bench.all_rows.values())
    result = []
    for name, first in next(iter(bench.rows.values())).by_class.items():
        if first.objects:
            parts = [row.by_class.get(name) for row in rows]
            result.append((name, first.objects, parts, [row.abo.get(name) for row in rows]))
    return sorted(result, key=lambda one: max(part.recall or 0 for part in one[2] if part))


def _picture(case: Case) -> CasePicture:
    left, top, right, bottom = case.box
    size = right - left, bottom - top
    try:
        image = read_image(case.path)
    except ImageError as error:
        problem = f"{case.path.name}: {str(error).removeprefix(f'{case.path}: ')}"
        return CasePicture(case, size, 0, 0, "", problem, (0, 0, 0, 0), {})
    x, y, width, height = _surroundings(case, image.shape[1], image.shape[0])
    scale = SIDE / max(width, height)

    def placed(box: tuple[float, float, float, float]) -> Box:
        x1, x2 = (min(max((place - x) * scale, 1), width * scale - 1) for place in box[::2])
        y1, y2 = (min(max((place - y) * scale, 1), height * scale - 1) for place in box[1::2])
        return round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1)

    found = sorted(case.overlaps.items(), key=lambda item: item[1])
    boxes = {name: (placed(case.boxes[name]) if name in case.boxes else None, value) for name, value in found}
    source = thumbnail(image[y : y + height, x : x + width], SIDE)
    shown = round(width * scale, 1), round(height * scale, 1)
    return CasePicture(case, size, *shown, source, "", placed(case.box), boxes)


def _surroundings(case: Case, width: int, height: int) -> tuple[int, int, int, int]:
    """Return x, y, width and height of the part of the image that is shown: all boxes and half as much around them."""
    boxes = np.array([case.box, *case.boxes.values()])
    limit = np.array([width, height])
    low = np.clip(boxes[:, :2].min(axis=0), 0, limit - 1)
    high = np.clip(boxes[:, 2:].max(axis=0), low + 1, limit)
    reach = np.maximum(0.5 * (high - low).max(), LEAST / 2 - (high - low) / 2)
    x1, y1 = np.maximum(low - reach, 0).astype(int).tolist()
    x2, y2 = np.minimum(np.ceil(high + reach), limit).astype(int).tolist()
    return x1, y1, x2 - x1, y2 - y1
