"""ILSVRC's scoring by hand and on the devkit's files; on random cases: test_parity.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from other_evaluators import ap_of, slow_ilsvrc

from detector.data.ground_truth import DataError
from detector.data.ilsvrc import det_classes, rcnn_split, read_blacklist
from detector.evaluation import evaluate_ilsvrc, read_results, write_ilsvrc, write_voc
from detector.evaluation.matching import match, relaxed_thresholds
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import ILSVRC, Truth
from detector.evaluation.truth_files import read_ilsvrc_truth

Main = Callable[[list[str]], int]
CLASSES = 5


def make_truth(
    rows: list[tuple[int, int, list[float]]],
    images: int,
    *,
    numbers: list[int] | None = None,
    convention: Any = ILSVRC,
    difficult: list[bool] | None = None,
    blacklist: list[tuple[int, int]] | None = None,
    crowd: list[bool] | None = None,
) -> Truth:
    """Objects as (image, label, box), images rising."""
    table = det_classes()
    classes = type(table)(table.names[:CLASSES], table.wnids[:CLASSES], table.ids[:CLASSES])
    boxes = np.array([box for _, _, box in rows], np.float64).reshape(-1, 4)
    return Truth(
        name="toy",
        classes=classes,
        image_ids=tuple(f"image_{index}" for index in range(images)),
        paths=tuple(Path(f"image_{index}.JPEG") for index in range(images)),
        sizes=np.full((images, 2), 200),
        numbers=np.array(numbers if numbers else range(1, images + 1), np.int64),
        image_index=np.array([image for image, _, _ in rows], np.int64),
        labels=np.array([label for _, label, _ in rows], np.int64),
        boxes=boxes,
        difficult=np.array(difficult or [False] * len(rows), np.bool_),
        crowd=np.array(crowd or [False] * len(rows), np.bool_),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2] + convention.inclusive, axis=1),
        convention=convention,
        blacklist=frozenset(blacklist or ()),
    )


def random_case(seed: int, convention: Any = ILSVRC) -> tuple[Truth, DetectionTable]:
    """Small, overlapping, duplicate and misplaced boxes; tied scores; difficult objects; blacklists; empty images."""
    generator = np.random.default_rng(seed)
    images = int(generator.integers(1, 7))

    def box() -> list[float]:
        width, height = generator.integers(1, 45, 2)
        x, y = generator.integers(0, 60, 2)
        corners = [float(x), float(y), float(x + width - 1), float(y + height - 1)]
        return [value + generator.choice([0, 0, 0, 0.25, 0.4]) for value in corners] if seed % 3 == 0 else corners

    rows = []
    for image in range(images):
        rows += [(image, int(generator.integers(CLASSES - 1)), box()) for _ in range(int(generator.integers(0, 6)))]
    found = []
    for image, label, near in rows:
        for _ in range(int(generator.integers(0, 4))):
            shift = generator.integers(-4, 5, 4) * generator.choice([0, 1, 1, 2])
            x1, y1, x2, y2 = np.array(near) + shift
            other = label if generator.random() < 0.8 else int(generator.integers(CLASSES))
            found.append((image, other, [x1, y1, max(x1, x2), max(y1, y2)]))
    found += [(int(generator.integers(images)), int(generator.integers(CLASSES)), box()) for _ in range(6)]
    found = [found[place] for place in generator.permutation(len(found))]
    scores = generator.choice([0.1, 0.3, 0.3, 0.5, 0.9], len(found)) if seed % 2 else generator.random(len(found))
    pairs = [(int(generator.integers(images)), int(generator.integers(CLASSES))) for _ in range(seed % 4)]
    truth = make_truth(
        rows,
        images,
        numbers=(generator.permutation(50)[:images] + 1).tolist(),
        convention=convention,
        difficult=[bool(generator.random() < 0.2) for _ in rows],
        blacklist=pairs if convention == ILSVRC else [],
    )
    table = DetectionTable(
        np.array([image for image, _, _ in found], np.int64),
        np.array([label for _, label, _ in found], np.int64),
        scores,
        np.array([corners for _, _, corners in found], np.float64).reshape(-1, 4),
        convention,
    )
    return truth, table


@pytest.mark.parametrize(("side", "threshold"), [(10, 0.25), (20, 0.4444), (24, 0.4983), (25, 0.5102), (100, 0.8264)])
def test_thresholds(side: int, threshold: float) -> None:
    box = np.array([[5.0, 7, 5 + side - 1, 7 + side - 1]])
    assert relaxed_thresholds(box, 1.0)[0] == pytest.approx(threshold, abs=5e-5)


def test_matchers_differ_as_the_method_says() -> None:
    """Two detections on two objects that overlap: ILSVRC and COCO find both, VOC calls the second a duplicate."""
    objects = [(0, 0, [1.0, 1, 100, 100]), (0, 0, [1.0, 31, 100, 130])]
    boxes = np.array([[1.0, 11, 100, 110], [1, 13, 100, 112]])
    zeros = np.zeros(2, np.int64)
    table = DetectionTable(zeros, zeros, np.array([0.9, 0.8]), boxes, ILSVRC)
    truth = make_truth(objects, 1)
    assert match(truth, table, "ilsvrc").status.tolist() == [1, 1]
    assert match(truth, table, "coco").status.tolist() == [1, 1]
    assert match(truth, table, "voc").status.tolist() == [1, 0]


def test_a_blacklisted_pair_is_neither_found_nor_punished() -> None:
    objects = [(0, 0, [0.0, 0, 49, 49]), (0, 1, [0.0, 0, 49, 49]), (1, 0, [0.0, 0, 49, 49])]
    table = DetectionTable(
        np.array([0, 0, 1]),
        np.array([0, 1, 0]),
        np.array([0.9, 0.8, 0.7]),
        np.array([[100.0, 100, 149, 149], [0, 0, 49, 49], [0, 0, 49, 49]]),
        ILSVRC,
    )
    before = evaluate_ilsvrc(make_truth(objects, 2), table)
    after = evaluate_ilsvrc(make_truth(objects, 2, blacklist=[(0, 0)]), table)
    first, second = list(before.ap)[:2]
    assert (before.ap[first], after.ap[first]) == (0.25, 1.0)
    assert (before.objects[first], after.objects[first]) == (2, 1)
    assert before.ap[second] == after.ap[second] == 1.0


# ---- files


def write_tree(folder: Path, truth: Truth) -> tuple[Path, Path, Path]:
    """The devkit's files: annotations, list, blacklist."""
    annotations = folder / "xml"
    annotations.mkdir(parents=True)
    for index, image_id in enumerate(truth.image_ids):
        items = "".join(
            f"<object><name>{truth.classes.wnids[truth.labels[row]]}</name><bndbox><xmin>{x1}</xmin><xmax>{x2}</xmax>"
            f"<ymin>{y1}</ymin><ymax>{y2}</ymax></bndbox></object>"
            for row in range(len(truth.boxes))
            if truth.image_index[row] == index
            for x1, y1, x2, y2 in [truth.boxes[row].tolist()]
        )
        size = "<size><width>200</width><height>200</height></size>"
        (annotations / f"{image_id}.xml").write_text(f"<annotation>{size}{items}</annotation>")
    numbers = truth.numbers.tolist()  # type: ignore[union-attr]
    lines = "".join(f"{name} {number}\n" for name, number in zip(truth.image_ids, numbers, strict=True))
    (folder / "list.txt").write_text(lines)
    pairs = [f"{numbers[image]} {truth.classes.wnids[label]}\n" for image, label in sorted(truth.blacklist)]
    (folder / "blacklist.txt").write_text("".join(pairs))
    return annotations, folder / "list.txt", folder / "blacklist.txt"


@pytest.mark.parametrize("seed", [1, 2, 3, 6, 9, 15])
def test_the_command_on_the_devkits_files(seed: int, tool: Callable[[str], Main], tmp_path: Path) -> None:
    truth, table = random_case(seed)
    annotations, image_list, blacklist = write_tree(tmp_path, truth)
    write_ilsvrc(tmp_path / "found.txt", truth, table)
    arguments = ["--protocol", "ilsvrc", "--detections", str(tmp_path / "found.txt"), "--annotations", str(annotations)]
    arguments += ["--image-list", str(image_list), "--blacklist", str(blacklist), "--json", str(tmp_path / "out.json")]
    assert tool("eval_map")(arguments) == 0
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["protocol"] == "ilsvrc"
    assert len(content["ap"]) == 200
    known = []
    for label, wnid in enumerate(truth.classes.wnids):
        expected = ap_of(slow_ilsvrc(truth, table, label, relaxed=True))
        assert content["ap"][wnid] == (None if expected is None else pytest.approx(expected, abs=1e-9))
        plain = ap_of(slow_ilsvrc(truth, table, label, relaxed=False))
        assert content["plain_ap"][wnid] == (None if plain is None else pytest.approx(plain, abs=1e-9))
        known += [] if expected is None else [expected]
    assert content["mean_ap"] == pytest.approx(np.mean(known), abs=1e-9)
    assert content["median_ap"] == pytest.approx(np.median(known), abs=1e-9)
    assert content["counts"]["classes_without_ground_truth"] == 200 - len(known)


def test_submissions_come_back_to_the_last_bit(tmp_path: Path) -> None:
    truth, table = random_case(6)
    table = DetectionTable(
        table.image_index, table.labels, np.random.default_rng(0).random(len(table)), table.boxes + 1 / 3, ILSVRC
    )
    write_ilsvrc(tmp_path / "found.txt", truth, table)
    back = read_results(tmp_path / "found.txt", truth).table
    for name in ("image_index", "labels", "scores", "boxes"):
        assert np.array_equal(getattr(back, name), getattr(table, name))
    write_voc(tmp_path / "voc", truth, table, "val")
    assert len(list((tmp_path / "voc").glob("comp4_det_val_*.txt"))) == CLASSES
    again = read_results(tmp_path / "voc", truth).table.to(ILSVRC)
    order, other = (np.lexsort((t.scores, t.labels)) for t in (table, again))
    assert again.boxes[other] == pytest.approx(table.boxes[order], abs=1e-12)
    assert np.array_equal(again.image_index[other], table.image_index[order])


def test_images_of_the_list_only(tmp_path: Path) -> None:
    truth, _ = random_case(1)
    (tmp_path / "found.txt").write_text("9999 1 0.5 0 0 9 9\n8888 1 0.5 0 0 9 9\n")
    with pytest.raises(ValueError, match=r"line 1: .*'9999'.*toy.*2 of 2"):
        read_results(tmp_path / "found.txt", truth)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a 1\nb\n", r'list.txt, line 2: \'b\' is no line of "name number"'),
        ("a 1\n\na 2\n", r"list.txt, line 3: a is on line 1 too"),
        ("a 1\nb 1\n", r"list.txt, line 2: 1 is on line 1 too"),
        ("\n", r"list.txt: no images in this list"),
    ],
)
def test_lists_are_checked(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        read_ilsvrc_truth(tmp_path, tmp_path / "list.txt")


def test_the_shipped_blacklist_and_splits() -> None:
    pairs = read_blacklist("ilsvrc2014")
    assert len(pairs) == len(set(pairs)) == 409
    assert {wnid for _, wnid in pairs} <= set(det_classes().wnids)
    first, second = rcnn_split("val1"), rcnn_split("val2")
    assert (len(first), len(second)) == (9887, 9917)
    names = {name for name, _ in first} | {name for name, _ in second}
    assert len(names) == 19804
    assert not names & {name for name, _ in pairs}  # R-CNN left those images out
    assert second[0] == ("ILSVRC2012_val_00032300", 1)


@pytest.mark.data
def test_the_shipped_tables_are_the_devkits(data_dir: Path) -> None:
    folder = data_dir / "ilsvrc-det"
    numbers = dict(line.split() for line in (folder / "ImageSets/DET/val.txt").read_text().splitlines())
    lines = (folder / "devkit/ILSVRC2014_det_validation_blacklist.txt").read_text().splitlines()
    assert [(numbers[name], wnid) for name, wnid in read_blacklist("ilsvrc2014")] == [tuple(x.split()) for x in lines]
    for split in ("val1", "val2"):
        listed = [line.split() for line in (folder / f"ImageSets/DET/{split}.txt").read_text().splitlines()]
        assert [[name, str(number)] for name, number in rcnn_split(split)] == listed


def test_a_blacklist_by_number_does_not_fit_rcnns_lists(tmp_path: Path) -> None:
    (tmp_path / "blacklist.txt").write_text("46 n00007846\n")
    with pytest.raises(DataError, match=r"val\.txt.*val2"):
        read_ilsvrc_truth(tmp_path, rcnn_split("val2"), tmp_path / "blacklist.txt", name="val2")
    for content, message in (("46\n", 'is no line of "number wnid"'), ("46 n1\n", "'n1' is none of the 200")):
        (tmp_path / "blacklist.txt").write_text(content)
        with pytest.raises(DataError, match=f"blacklist.txt, line 1: .*{message}"):
            read_blacklist(tmp_path / "blacklist.txt")
