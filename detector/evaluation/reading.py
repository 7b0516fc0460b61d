"""Files of detections -> DetectionTable, checked (checking.py) before anything is scored.

    COCO results    a list, or a data set whose annotations have scores      json_results.py
    lines of JSON   one line an image, as a run of this project              json_results.py
    ILSVRC          the devkit's text                                        text_results.py
    PASCAL VOC      a folder of comp4_det_SPLIT_CLASS.txt, or one of them    text_results.py
    text folders    one file an image: Cartucho/mAP's form, YOLO's and others    text_folders.py
    labelme         one file an image, whose shapes have a score             labelme_results.py
    CSV             a table with columns image, class, score and a box       csv_tables.py

Which of these a path is, is seen by looking. Each is read against any kind of ground truth.
"""

from __future__ import annotations

from pathlib import Path

from detector.data.trees import files_below
from detector.evaluation.box_layouts import Layout, parse_layout
from detector.evaluation.checking import Results, no_detections
from detector.evaluation.csv_tables import is_table, read_table
from detector.evaluation.json_results import read_coco_results, read_json_lines
from detector.evaluation.labelme_results import read_labelme_results
from detector.evaluation.results import ResultsError
from detector.evaluation.row_results import OPTION, results_of_rows
from detector.evaluation.rows import NUMERIC
from detector.evaluation.text_folders import read_text_folder, text_files
from detector.evaluation.text_results import ILSVRC_COLUMNS, VOC_COLUMNS, read_comp4, read_submission
from detector.evaluation.truth import Truth

ENCODED = {
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"PK\x03\x04": "a zip file; unpack it first",
    b"\xff\xfe": "a text in UTF-16, as PowerShell's > writes; save it in UTF-8",
    b"\xfe\xff": "a text in UTF-16; save it in UTF-8",
}
"""First bytes of files that cannot be read, and the reason."""


def read_results(path: Path, truth: Truth, boxes: str = "") -> Results:
    """Read a file or folder of detections of any of these forms.

    An image may be named by its id, its number, its file name with or without ending, or the end of its path. A class
    may be named by its number in the truth's table, its name or its WordNet id. Detections on images that the truth's
    image list leaves out are left out and counted.

    Args:
        path: The file or folder.
        truth: The ground truth.
        boxes: Layout of the boxes of a text folder or a table, "xyxy", "xywh" or "cxcywh", with ",relative" for shares
            of the image; empty to find it.

    Raises:
        ResultsError: no such file; a malformed file, with the line; unknown images or classes; numbers for classes that
            have none; numbers that are not finite; boxes in another layout, or in one that cannot be told.
        UserError: `boxes` is no layout.
    """
    layout = parse_layout(boxes, OPTION)
    if path.is_dir():
        return _read_folder(path, truth, layout)
    try:
        with path.open("rb") as file:
            start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise ResultsError(f"{path}: cannot read: {(error.strerror or str(error)).lower()}") from error
    if not start:
        return no_detections(path, truth)
    for magic, kind in ENCODED.items():
        if start.startswith(magic):
            raise ResultsError(f"{path}: {kind}")
    if not start.startswith((b"[", b"{")) and is_table(path):
        return results_of_rows(read_table(path, ResultsError, scored=True), truth, layout)
    _refuse(layout, path)
    if start.startswith(b"["):
        return read_coco_results(path, truth)
    if start.startswith(b"{"):
        return read_json_lines(path, truth)
    words = start.split(b"\n")[0].decode(errors="replace").split()
    of_numbers = len(words) == len(ILSVRC_COLUMNS) and all(map(NUMERIC.fullmatch, words))
    if "_det_" in path.name and len(words) >= len(VOC_COLUMNS) and not (of_numbers and truth.numbers is not None):
        return read_comp4(path, [path], truth)
    if words[4:] and not NUMERIC.fullmatch(words[0]) and all(map(NUMERIC.fullmatch, words[-4:])):
        raise ResultsError(f"{path}: begins like the text file of one image; give the folder that holds one for each")
    return read_submission(path, truth)


def _read_folder(path: Path, truth: Truth, layout: Layout | None) -> Results:
    if comp4 := sorted(path.glob("*_det_*_*.txt")):
        _refuse(layout, path)
        return read_comp4(path, comp4, truth)
    texts, labelled = text_files(path), files_below(path, (".json",))
    if texts and labelled:
        raise ResultsError(f"{path}: holds {texts[0].name} and {labelled[0].name}; give the folder of one kind")
    if texts:
        return results_of_rows(read_text_folder(path, texts, ResultsError, scored=True), truth, layout)
    if labelled:
        _refuse(layout, path)
        return read_labelme_results(path, labelled, truth)
    tables = files_below(path, (".csv", ".tsv"))
    more = f"; there is {tables[0]}, which may be given itself" if tables else ""
    raise ResultsError(
        f"{path}: no detections in this folder: neither comp4_det_SPLIT_CLASS.txt, nor one text or labelme file an "
        f"image{more}"
    )


def _refuse(layout: Layout | None, path: Path) -> None:
    if layout is not None:
        raise ResultsError(f"{path}: {OPTION} is for text folders and CSV; the boxes of this format have one layout")
