"""Ground truth that a path names: XML with and without a list, data sets in a folder, options that do not apply."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detector.data.ground_truth import DataError
from detector.data.ilsvrc import det_classes
from detector.data.voc_classes import VOC_CLASSES
from detector.evaluation import ResultsError, read_results
from detector.evaluation.protocols import Protocol, ScoringConfig
from detector.evaluation.truth import ILSVRC, VOC
from detector.evaluation.truth_paths import open_truth

VOC07 = ScoringConfig(protocol=Protocol.voc)
DET = ScoringConfig(protocol=Protocol.ilsvrc)


def write_xml(path: Path, *names: str, corner: int = 11) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    box = f"<xmin>{corner}</xmin><ymin>21</ymin><xmax>40</xmax><ymax>60</ymax>"
    objects = "".join(f"<object><name>{name}</name><bndbox>{box}</bndbox></object>" for name in names)
    size = "<size><width>100</width><height>80</height></size>"
    path.write_text(f"<annotation>{size}{objects}</annotation>")


def test_xml_without_a_list_are_all_its_files(tmp_path: Path) -> None:
    for name in ("a", "b c", "sub/d"):
        write_xml(tmp_path / f"VOC/Annotations/{name}.xml", "cat", "dog")
    (tmp_path / "VOC/JPEGImages").mkdir()
    (tmp_path / "VOC/JPEGImages/a.png").touch()
    for path in (tmp_path / "VOC/Annotations", tmp_path / "VOC"):
        truth = open_truth(path, None, VOC07)
        assert truth.image_ids == ("a", "b c", "sub/d")
        assert truth.classes.names == VOC_CLASSES
        assert truth.convention == VOC
        assert truth.boxes[0].tolist() == [11, 21, 40, 60]
        assert truth.name == "VOC"
        assert truth.paths[0] == tmp_path / "VOC/JPEGImages/a.png"
    (tmp_path / "list.txt").write_text("b c\n")
    assert open_truth(tmp_path / "VOC", tmp_path / "list.txt", VOC07).image_ids == ("b c",)


def test_classes_of_xml_are_those_that_it_names(tmp_path: Path) -> None:
    write_xml(tmp_path / "a.xml", "zebra crossing", "Ampel")
    truth = open_truth(tmp_path, None, VOC07)
    assert truth.classes.names == ("Ampel", "zebra crossing")
    assert open_truth(tmp_path, None, VOC07, ("zebra crossing", "Ampel")).labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"a.xml: unknown class 'zebra crossing'"):
        open_truth(tmp_path, None, VOC07, ("Ampel",))


def test_ilsvrcs_xml_are_known_by_their_names(tmp_path: Path) -> None:
    """With a list they have numbers, by which a submission names them; without, all files count."""
    write_xml(tmp_path / "val/ILSVRC2012_val_00000001.xml", "n02084071")
    write_xml(tmp_path / "val/ILSVRC2012_val_00000002.xml")
    (tmp_path / "list.txt").write_text("ILSVRC2012_val_00000001 1\nILSVRC2012_val_00000002 2\n")
    (tmp_path / "plain.txt").write_text("ILSVRC2012_val_00000001\n")
    (tmp_path / "found.txt").write_text(f"1 {det_classes().label_of['n02084071'] + 1} 0.5 11 21 40 60\n")
    for config in (VOC07, DET):
        truth = open_truth(tmp_path / "val", tmp_path / "list.txt", config)
        assert len(truth.classes) == 200
        assert truth.convention == ILSVRC
        assert read_results(tmp_path / "found.txt", truth).table.labels.tolist() == truth.labels.tolist()
        every = open_truth(tmp_path / "val", None, config)
        assert every.image_ids == truth.image_ids
        with pytest.raises(ResultsError, match="images by ILSVRC's numbers, and those of val have none"):
            read_results(tmp_path / "found.txt", every)
    assert open_truth(tmp_path / "val", tmp_path / "plain.txt", VOC07).classes.names == ("n02084071",)


def coco_file(path: Path) -> None:
    content = {
        "images": [{"id": 3, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": [{"id": 5, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 3, "category_id": 5, "bbox": [1, 2, 30, 40], "area": 1200, "iscrowd": 0}],
    }
    path.write_text(json.dumps(content))


def test_a_folder_with_one_coco_file(tmp_path: Path) -> None:
    coco_file(tmp_path / "truth.json")
    (tmp_path / "found.json").write_text("[]")
    assert open_truth(tmp_path, None, VOC07).boxes.tolist() == [[1, 2, 31, 42]]
    coco_file(tmp_path / "other.json")
    with pytest.raises(DataError, match=r"other.json and truth.json may both be the ground truth"):
        open_truth(tmp_path, None, VOC07)


def test_a_list_chooses_among_the_files_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("image,class,x1,y1,x2,y2\na,cat,1,2,3,4\nb,cat,1,2,3,4\n")
    (tmp_path / "list.txt").write_text("b\n")
    truth = open_truth(tmp_path / "truth.csv", tmp_path / "list.txt", VOC07)
    assert truth.image_ids == ("b",)
    (tmp_path / "list.txt").write_text("c\n")
    with pytest.raises(DataError, match=r"list.txt, line 1: unknown image 'c'"):
        open_truth(tmp_path / "truth.csv", tmp_path / "list.txt", VOC07)


@pytest.mark.parametrize(
    ("config", "options", "reason"),
    [
        (ScoringConfig(protocol=Protocol.ilsvrc, blacklist="ilsvrc2014"), {}, "a blacklist is for ILSVRC's XML"),
        (VOC07, {"class_names": ["cat"]}, "names its own; leave them out"),
        (VOC07, {"boxes": "xyxy"}, "--truth-boxes is for text folders and CSV, and .* is a COCO file"),
    ],
)
def test_options_that_a_kind_does_not_have(
    tmp_path: Path, config: ScoringConfig, options: dict[str, list[str]], reason: str
) -> None:
    coco_file(tmp_path / "truth.json")
    with pytest.raises(DataError, match=reason):
        open_truth(tmp_path / "truth.json", None, config, **options)  # type: ignore[arg-type]
