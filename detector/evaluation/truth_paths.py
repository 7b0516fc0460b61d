"""The ground truth that a command names by a path: what it holds is seen by looking.

    file      COCO's JSON, or a table in CSV
    folder    XML in PASCAL VOC's or ILSVRC's form, labelme's JSON, one COCO file, YOLO's labels, or one text file an
              image, as the mAP scripts read it

In: the path, perhaps a list of images.  Out: a Truth, whose warnings say what was assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from detector.data.files import Files
from detector.data.ground_truth import DataError, read_lines
from detector.data.ilsvrc import det_classes
from detector.data.json_files import kind_of_json
from detector.data.labelme import read_labelme
from detector.data.listing import IMAGE_SUFFIXES
from detector.data.trees import LABEL_FOLDERS, files_below
from detector.data.voc import XML
from detector.data.voc_xml import names_in
from detector.data.yolo import read_yolo
from detector.evaluation.box_layouts import SHARES, parse_layout
from detector.evaluation.csv_tables import is_table, read_table
from detector.evaluation.protocols import Protocol, ScoringConfig
from detector.evaluation.row_truth import OPTION, truth_of_rows
from detector.evaluation.rows import NUMERIC, names_near
from detector.evaluation.text_folders import read_text_folder, text_files
from detector.evaluation.truth import Truth
from detector.evaluation.truth_files import listed_part, read_coco_truth, read_ilsvrc_truth, read_voc_truth

SAMPLE = 20
"""Files of a folder that are opened to recognise their kind."""


def open_truth(
    annotations: Path,
    image_list: Path | None,
    config: ScoringConfig,
    class_names: Sequence[str] = (),
    boxes: str = "",
) -> Truth:
    """Read the ground truth that a path names.

    Args:
        annotations: A COCO file or a table, or a folder of XML, of labelme's, of YOLO's or of text files.
        image_list: List of the images to score; None for all. ILSVRC's has their numbers too, without which a
            submission's text cannot be scored.
        config: The protocol, and ILSVRC's blacklist.
        class_names: The K classes; empty for those that the files name. XML in VOC's form: empty for VOC's 20, or,
            where the files have other names, for all of those, sorted.
        boxes: Layout of the boxes of a text folder or a table, "xyxy", "xywh" or "cxcywh", with ",relative" for shares
            of the image; empty to find it.

    Raises:
        DataError: a file cannot be read; a folder holds no ground truth or several kinds; an option that the files or
            the protocol do not have; a list that names an image which the files do not have, or one twice; a layout of
            boxes that cannot be told.
        UserError: `boxes` is no layout.
    """
    if not annotations.exists():
        raise DataError(f"{annotations}: no such file or folder of ground truth")
    layout = parse_layout(boxes, OPTION)
    if (annotations / "Annotations").is_dir():  # the folder around it, as VOC's archives have it
        annotations = annotations / "Annotations"
    kind, files = _kind(annotations, config)
    if kind == "ilsvrc" and config.protocol is not Protocol.ilsvrc and (class_names or _is_plain(image_list)):
        kind = "voc"  # ILSVRC's files, of which others chose classes or images
    if config.blacklist and kind != "ilsvrc":
        raise DataError(f"a blacklist is for ILSVRC's XML, and {annotations} is {NAMES[kind]}; leave it out")
    if class_names and kind in ("ilsvrc", "coco"):
        owner = "ILSVRC DET has its own 200" if kind == "ilsvrc" else f"{annotations} names its own"
        raise DataError(f"class names are for other ground truth than this, and {owner}; leave them out")
    if layout and kind not in ("text", "table"):
        raise DataError(f"{OPTION} is for text folders and CSV, and {annotations} is {NAMES[kind]}; leave it out")
    if kind == "voc":
        names = _names_of(files, annotations)
        images = next((folder for folder in _image_folders(annotations) if Files(folder).find(names[0])), None)
        name = annotations.name if annotations.name != "Annotations" else annotations.absolute().parent.name
        return read_voc_truth(annotations, image_list or names, tuple(class_names), name=name, images=images)
    if kind == "ilsvrc":
        return _ilsvrc(annotations, image_list, config, files)
    match kind:
        case "coco":
            truth = read_coco_truth(files[0])
        case "labelme":
            dataset = read_labelme(annotations, class_names=class_names, as_written=True)
            truth = replace(Truth.of(dataset), numbered=False).with_trusted_sizes()
        case "yolo":
            truth = _yolo(annotations, class_names)
        case "table":
            truth = truth_of_rows(read_table(annotations, DataError, scored=False), class_names, layout)
        case _:
            truth = truth_of_rows(read_text_folder(annotations, files, DataError, scored=False), class_names, layout)
    return truth if image_list is None else listed_part(truth, image_list)


NAMES = {
    "voc": "XML in VOC's form",
    "ilsvrc": "ILSVRC's XML",
    "coco": "a COCO file",
    "labelme": "a folder of labelme's",
    "yolo": "a folder of YOLO's labels",
    "text": "a folder of text files",
    "table": "a table",
}


def _kind(path: Path, config: ScoringConfig) -> tuple[str, list[Path]]:
    """Return the kind of ground truth that a path holds, a key of NAMES, and its files."""
    if not path.is_dir():
        if path.suffix.lower() in (*XML, ".txt") and not is_table(path):
            raise DataError(
                f"{path}: no table of boxes; where it is the file of one image, give the folder of all of them"
            )
        return ("table" if is_table(path) else "coco"), [path]
    xml, json = files_below(path, XML), files_below(path, (".json",))
    labelme = [file for file in json[:SAMPLE] if kind_of_json(file) == "labelme"]
    coco = [file for file in json[:SAMPLE] if kind_of_json(file) == "coco"]
    texts = text_files(path) if not xml else []  # beside XML they are lists of images
    names = set().union(*map(names_in, xml[:SAMPLE]))
    ilsvrc = names <= {*det_classes().wnids} if names else config.protocol is Protocol.ilsvrc
    absent = ilsvrc and not (xml or json or texts)  # the contest keeps the annotations of its test images
    found = {"ilsvrc" if ilsvrc else "voc": xml or [path] * absent, "labelme": labelme, "coco": coco}
    found["yolo" if texts and _is_yolo(texts) else "text"] = texts
    kinds = [kind for kind, files in found.items() if files]
    if len(kinds) > 1:
        both = " and ".join(f"{NAMES[kind]} ({found[kind][0].name})" for kind in kinds)
        raise DataError(f"{path}: holds {both}; name the folder or file of one of them")
    if not kinds:
        raise DataError(
            f"{path}: no ground truth in this folder: no XML, no JSON of COCO's or labelme's, no text files of boxes"
        )
    (kind,) = kinds
    if kind == "coco" and len(coco) > 1:
        raise DataError(f"{path}: {coco[0].name} and {coco[1].name} may both be the ground truth; name one of them")
    return kind, found[kind]


def _is_plain(image_list: Path | None) -> bool:
    """Whether a list of images lacks ILSVRC's numbers."""
    return image_list is not None and not all(line.split()[-1].isdecimal() for line in read_lines(image_list) if line)


def _image_folders(annotations: Path) -> list[Path]:
    """Return the folders in which the images of XML files may lie, the likeliest first."""
    return [*(annotations.parent / name for name in ("JPEGImages", "images")), annotations]


def _is_yolo(files: Sequence[Path]) -> bool:
    """Whether the first rows of text files are a class's number and shares of an image."""
    rows = [line.split() for path in files[:SAMPLE] for line in islice(read_lines(path), SAMPLE) if line]
    words = set(chain.from_iterable(rows))
    if not rows or not all(map(NUMERIC.fullmatch, words)) or not all(row[0].isdecimal() for row in rows):
        return False
    return all(len(row) >= 5 and max(map(float, row[1:])) <= SHARES for row in rows)


def _ilsvrc(annotations: Path, image_list: Path | None, config: ScoringConfig, files: Sequence[Path]) -> Truth:
    if image_list is not None:
        return read_ilsvrc_truth(annotations, image_list, config.blacklist)
    if files == [annotations]:
        raise DataError(
            f"{annotations}: no XML files in it; ILSVRC's images without annotations need a list of the images"
        )
    names = [(name, number) for number, name in enumerate(_names_of(files, annotations), 1)]
    truth = read_ilsvrc_truth(annotations, names, config.blacklist, name=annotations.name)
    return replace(truth, numbers=None)  # a submission's are those of a list


def _yolo(annotations: Path, class_names: Sequence[str]) -> Truth:
    """Read YOLO's labels; their images lie among them or in a folder beside theirs."""
    root, split = annotations, ""
    whole = annotations.absolute()
    for place in (whole, whole.parent):
        if place.name.lower() in {name.lower() for name in LABEL_FOLDERS}:
            root, split = place.parent, whole.relative_to(place).as_posix().removeprefix(".")
            break
    if not files_below(root, IMAGE_SUFFIXES):
        raise DataError(
            f"{annotations}: YOLO's boxes are shares of their images, and there are none, in this folder or in "
            "one named images beside it"
        )
    names = tuple(class_names) or names_near(annotations)[0]
    return Truth.of(read_yolo(root, split, class_names=names, as_written=True))


def _names_of(files: Sequence[Path], folder: Path) -> list[str]:
    """Return the names of XML files' images: their paths below the folder without suffix."""
    return [path.relative_to(folder).with_suffix("").as_posix() for path in files]
