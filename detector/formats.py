"""Detections of an image -> the files of other programs: PASCAL VOC, YOLO, labelme, COCO, CSV and ILSVRC.

In: Detections, the size of the upright image, px.  Out: text, or what `json` and `csv` write. Nothing is written here.
Boxes are cut at the image's edge. Each format has its own corners: VOC counts pixels from 1 and its far corner is
inside the box, ILSVRC counts from 0 with a far corner inside, COCO and YOLO have widths, the others are as Detections.

D detections, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from detector.detections import Detections

Size = tuple[int, int]
"""Width and height, px."""

CSV_HEADER = ("image", "time", "width", "height", "label", "score", "x1", "y1", "x2", "y2")
"""Columns of `csv_rows`."""
SCORE_DIGITS, PIXEL_DIGITS, SHARE_DIGITS = 6, 2, 6

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def rounded(found: Detections) -> Detections:
    """Round to what `detect` writes in every format: scores to 6 decimals, corners to 2."""
    return replace(found, boxes=found.boxes.round(PIXEL_DIGITS), scores=found.scores.round(SCORE_DIGITS))


def voc_xml(found: Detections, size: Size, image: str, *, confidence: bool = False) -> str:
    """Return the annotation of an image as PASCAL VOC, labelImg and CVAT read it.

    Args:
        found: The detections; corners become whole pixels.
        size: Width and height of the upright image, px.
        image: Path of the image file, with "/".
        confidence: Whether each object states its score, as <confidence>, which VOC itself does not have.

    >>> found = Detections(np.array([[4.0, 8.0, 40.0, 60.0]]), np.array([0.9]), np.array([1]), ("dog", "cat"))
    >>> "".join(voc_xml(found, (90, 60), "photos/a.jpg").split()[-8:-2])
    '<bndbox><xmin>5</xmin><ymin>9</ymin><xmax>40</xmax><ymax>60</ymax></bndbox>'
    """
    *folders, name = image.split("/")
    top = ElementTree.Element("annotation")
    _add(top, folder=folders[-1] if folders else "", filename=name)
    _add(ElementTree.SubElement(top, "source"), database="Unknown", annotation="googlenet-rcnn detect")
    _add(ElementTree.SubElement(top, "size"), width=size[0], height=size[1], depth=3)
    _add(top, segmented=0)
    corners = _inside(found, size).round().astype(int)
    for one, (x1, y1, x2, y2) in zip(found, corners.tolist(), strict=True):
        item = ElementTree.SubElement(top, "object")
        _add(item, name=one.name, pose="Unspecified", truncated=0, difficult=0)
        if confidence:
            _add(item, confidence=one.score)
        near = min(x1, size[0] - 1) + 1, min(y1, size[1] - 1) + 1
        far = max(x2, near[0]), max(y2, near[1])
        _add(ElementTree.SubElement(item, "bndbox"), xmin=near[0], ymin=near[1], xmax=far[0], ymax=far[1])
    ElementTree.indent(top, "\t")
    return ElementTree.tostring(top, encoding="unicode") + "\n"


def yolo_txt(found: Detections, size: Size, *, confidence: bool = False) -> str:
    """Return a line "class cx cy width height" for each detection; the class from 0, the rest as shares of the image.

    Args:
        found: The detections.
        size: Width and height of the upright image, px.
        confidence: Whether the score is the sixth column. Labels for a training have five.

    >>> found = Detections(np.array([[4.0, 8.0, 40.0, 60.0]]), np.array([0.9]), np.array([1]), ("dog", "cat"))
    >>> print(yolo_txt(found, (80, 64)), end="")
    1 0.275000 0.531250 0.450000 0.812500
    """
    x1, y1, x2, y2 = (_inside(found, size) / [size[0], size[1], size[0], size[1]]).T
    rows = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1).tolist()
    lines = []
    for one, row in zip(found, rows, strict=True):
        numbers = [*row, one.score] if confidence else row
        lines.append(f"{one.label} {' '.join(f'{value:.{SHARE_DIGITS}f}' for value in numbers)}\n")
    return "".join(lines)


def yolo_yaml(names: Sequence[str]) -> str:
    """Return the data.yaml of a folder with images/ and labels/, which names the K classes from 0.

    It has no `path`: ultralytics then starts from the file's own folder, and from the working directory with `path: .`.

    >>> print(yolo_yaml(["dog", "traffic light"]), end="")
    train: images
    val: images
    names:
      0: "dog"
      1: "traffic light"
    """
    import json

    lines = ["train: images", "val: images", "names:"]
    lines += [f"  {number}: {json.dumps(name, ensure_ascii=False)}" for number, name in enumerate(names)]
    return "\n".join(lines) + "\n"


def labelme_json(found: Detections, size: Size, image: str, *, confidence: bool = False) -> dict[str, Any]:
    """Return the content of a labelme file, which labelme opens with its image.

    Args:
        found: The detections, as rectangles.
        size: Width and height of the upright image, px.
        image: Path of the image file from the folder of the labelme file, with "/".
        confidence: Whether each rectangle's description is its score.
    """
    corners = _inside(found, size).tolist()
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {
                "label": one.name,
                "points": [[x1, y1], [x2, y2]],
                "group_id": None,
                "description": f"{one.score:g}" if confidence else "",
                "shape_type": "rectangle",
                "flags": {},
                "mask": None,
            }
            for one, (x1, y1, x2, y2) in zip(found, corners, strict=True)
        ],
        "imagePath": image,
        "imageData": None,
        "imageHeight": size[1],
        "imageWidth": size[0],
    }


def coco_results(
    found: Detections, image_id: int | str, category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Return an image's part of a COCO results file, `Detections.to_coco` with each class's name as "category".

    eval_map reads the name, so that the file fits any ground truth with these classes; pycocotools reads the number.

    Args:
        found: The detections.
        image_id: The image's id in the ground truth, or its file name, by which eval_map knows it too.
        category_ids: The K category ids in label order; None for label + 1.
    """
    entries = found.to_coco(image_id, category_ids)
    for one, entry in zip(found, entries, strict=True):
        entry["bbox"] = [round(value, PIXEL_DIGITS) for value in entry["bbox"]]
        entry["category"] = one.name
    return entries


def csv_rows(found: Detections, size: Size, image: str, time: float | None = None) -> list[tuple[Any, ...]]:
    """Return a row for each detection, in the columns of CSV_HEADER, for `csv.writer`.

    Args:
        found: The detections.
        size: Width and height of the upright image, px.
        image: Path of the image file or the video.
        time: Seconds from the beginning of the video; None for an image.
    """
    shown = "" if time is None else round(time, 3)
    return [(image, shown, *size, one.name, one.score, *one.box) for one in found]


def ilsvrc_txt(found: Detections, number: int, det_ids: Sequence[int] | NDArray[np.int64]) -> str:
    """Return the lines of ILSVRC's submission for an image: "image-number det-id confidence x1 y1 x2 y2".

    Args:
        found: The detections.
        number: The image's number in its list, from 1.
        det_ids: The K ILSVRC numbers of the classes, 1..200; a class with another number is left out.
    """
    corners = (found.boxes - [0, 0, 1, 1]).round(PIXEL_DIGITS).tolist()
    return "".join(
        f"{number} {det_ids[one.label]} {' '.join(str(value).removesuffix('.0') for value in (one.score, *box))}\n"
        for one, box in zip(found, corners, strict=True)
        if det_ids[one.label] > 0
    )


def _inside(found: Detections, size: Size) -> NDArray[np.float64]:
    """Boxes [D, 4] px, cut at the image's edge."""
    boxes: NDArray[np.float64] = np.clip(found.boxes, 0, [size[0], size[1], size[0], size[1]])
    return boxes


def _add(parent: ElementTree.Element, **texts: object) -> None:
    """Add an element for each text; characters that XML lacks are escaped as in Python."""
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = _NOT_XML.sub(
            lambda one: one[0].encode("unicode_escape").decode(), str(text)
        )
