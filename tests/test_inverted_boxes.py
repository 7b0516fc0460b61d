"""Boxes that end before they begin: false positives by the devkits' rules, pycocotools' own treatment under COCO."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from other_evaluators import ap_of, devkit_overlap
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.data.ilsvrc import det_classes
from detector.evaluation import ResultsError, evaluate_coco, evaluate_ilsvrc, evaluate_voc, read_results
from detector.evaluation.average import COCO_POINTS, average_precisions
from detector.evaluation.matching import match
from detector.evaluation.truth_files import read_coco_truth, read_ilsvrc_truth
from detector.evaluation.writing import write_results

Main = Callable[[list[str]], int]
IMAGES, CLASSES, DETECTIONS, INVERTED = 40, 12, 3509, 104
SIDE = 300


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of the devkit and a submission like its demo: 3,509 boxes, of which 104 end before they begin."""
    folder = tmp_path_factory.mktemp("devkit")
    (folder / "xml").mkdir()
    generator = np.random.default_rng(7)
    wnids = det_classes().wnids
    lines, numbers = [], (generator.permutation(20_000)[:IMAGES] + 1).tolist()
    objects = []
    for image, number in enumerate(numbers):
        items = ""
        for label in [image % CLASSES, *generator.integers(CLASSES, size=4).tolist()]:
            x, y = generator.integers(0, 200, 2)
            width, height = generator.integers(8, 90, 2)
            box = [int(x), int(y), int(x + width - 1), int(y + height - 1)]
            objects.append((number, label, box))
            corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
            items += f"<object><name>{wnids[label]}</name><bndbox>{corners}</bndbox></object>"
        size = f"<size><width>{SIDE}</width><height>{SIDE}</height></size>"
        (folder / f"xml/ILSVRC_val_{number}.xml").write_text(f"<annotation>{size}{items}</annotation>")
    (folder / "val.txt").write_text("".join(f"ILSVRC_val_{number} {number}\n" for number in numbers))
    inverted = set(generator.permutation(DETECTIONS)[:INVERTED].tolist())
    for row in range(DETECTIONS):
        number, label, box = objects[row % len(objects)]
        x1, y1, x2, y2 = np.clip(np.array(box) + generator.integers(-8, 9, 4), 0, SIDE - 1).tolist()
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        if generator.random() < 0.3:
            label = int(generator.integers(CLASSES))
        if row in inverted:  # by the corners of one side, of both, and by one pixel
            x1, y1, x2, y2 = [
                (x2 + 1, y1, x1, y2),
                (x1, y2 + 1, x2, y1),
                (x2 + 1, y2 + 1, x1, y1),
                (x1, y1, x1 - 1, y2),
            ][row % 4]
        score = round(float(generator.random()), 2)  # with ties
        lines.append(f"{number} {label + 1} {score} {x1} {y1} {x2} {y2}\n")
    (folder / "demo.val.pred.det.txt").write_text("".join(lines))
    return folder


def devkit_mean_ap(folder: Path) -> float:
    """eval_detection.m, from the files, one image, one detection and one object at a time."""
    truth = read_ilsvrc_truth(folder / "xml", folder / "val.txt")
    assert truth.numbers is not None
    rows = np.loadtxt(folder / "demo.val.pred.det.txt")
    hits: dict[int, list[tuple[float, bool]]] = {label: [] for label in range(200)}
    for image in np.argsort(truth.numbers).tolist():
        boxes, labels = truth.boxes[truth.image_index == image], truth.labels[truth.image_index == image]
        size = boxes[:, 2:] - boxes[:, :2] + 1
        threshold = np.minimum(0.5, size.prod(axis=1) / ((size[:, 0] + 10) * (size[:, 1] + 10)))
        found = rows[rows[:, 0] == truth.numbers[image]]
        taken = np.zeros(len(boxes), bool)
        for row in found[np.argsort(-found[:, 2], kind="stable")]:
            best, most = -1, -np.inf
            for place in range(len(boxes)):
                if labels[place] != row[1] - 1 or taken[place]:
                    continue
                overlap = devkit_overlap(row[3:].tolist(), boxes[place].tolist())
                if overlap >= threshold[place] and overlap > most:
                    best, most = place, overlap
            if best >= 0:
                taken[best] = True
            hits[int(row[1]) - 1].append((row[2], best >= 0))
    positives = np.bincount(truth.labels, minlength=200)
    return float(
        np.mean(
            [
                ap_of(([hit for _, hit in sorted(hits[label], key=lambda item: -item[0])], int(positives[label])))
                for label in np.flatnonzero(positives).tolist()
            ]
        )
    )


def test_the_devkits_demo_is_scored_by_the_devkits_rules(
    devkit: Path, tool: Callable[[str], Main], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--protocol", "ilsvrc", "--detections", str(devkit / "demo.val.pred.det.txt"), "resamples=0"]
    arguments += ["--annotations", str(devkit / "xml"), "--image-list", str(devkit / "val.txt")]
    assert tool("eval_map")([*arguments, "--json", str(tmp_path / "out.json")]) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert "104" in warning
    assert "3,509" in warning
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["counts"]["detections"] == DETECTIONS  # they are counted, as misses
    expected = devkit_mean_ap(devkit)
    assert report["mean_ap"] == pytest.approx(expected, abs=1e-12)
    lines = (devkit / "demo.val.pred.det.txt").read_text().splitlines(keepends=True)
    upright = [line for line in lines if float(line.split()[3]) <= float(line.split()[5])]
    upright = [line for line in upright if float(line.split()[4]) <= float(line.split()[6])]
    assert len(upright) == DETECTIONS - INVERTED
    (tmp_path / "upright.txt").write_text("".join(upright))
    truth = read_ilsvrc_truth(devkit / "xml", devkit / "val.txt")
    without = evaluate_ilsvrc(truth, read_results(tmp_path / "upright.txt", truth).table).mean_ap
    assert without > expected + 0.001  # leaving them out would be another number


@pytest.mark.parametrize("name", ["found.txt", "found", "found.json"])
def test_every_format_holds_them_and_gives_them_back(devkit: Path, tmp_path: Path, name: str) -> None:
    truth = read_ilsvrc_truth(devkit / "xml", devkit / "val.txt")
    table = read_results(devkit / "demo.val.pred.det.txt", truth).table
    write_results(tmp_path / name, truth, table)
    again = read_results(tmp_path / name, truth).table
    assert evaluate_ilsvrc(truth, again).ap == evaluate_ilsvrc(truth, table).ap
    assert evaluate_voc(truth, again).ap == evaluate_voc(truth, table).ap
    assert len(again) == DETECTIONS


def test_voc_counts_them_as_false_positives(devkit: Path) -> None:
    truth = read_ilsvrc_truth(devkit / "xml", devkit / "val.txt")
    table = read_results(devkit / "demo.val.pred.det.txt", truth).table
    inverted = (table.boxes[:, 2:] < table.boxes[:, :2]).any(axis=1)
    assert inverted.sum() == INVERTED
    for protocol in ("voc", "ilsvrc"):
        assert (match(truth, table, protocol).status[inverted] == 0).all()


@pytest.mark.parametrize(("count", "refused"), [(10, False), (11, True)])
@pytest.mark.parametrize("form", ["txt", "voc", "json", "jsonl"])
def test_more_than_a_tenth_is_another_layout(
    devkit: Path, tmp_path: Path, form: str, count: int, refused: bool
) -> None:
    truth = read_ilsvrc_truth(devkit / "xml", devkit / "val.txt")
    boxes = [[200, 20, 40, 60] if row < count else [20, 20, 260, 260] for row in range(100)]
    number, name = int(truth.numbers[0]), truth.image_ids[0]  # type: ignore[index]
    wnid = truth.classes.wnids[0]
    path = tmp_path / {"txt": "a.txt", "voc": f"comp4_det_val_{wnid}.txt", "json": "a.json", "jsonl": "a.jsonl"}[form]
    if form == "txt":
        content = "".join(f"{number} 1 0.5 {' '.join(map(str, box))}\n" for box in boxes)
    elif form == "voc":
        content = "".join(f"{name} 0.5 {' '.join(map(str, box))}\n" for box in boxes)
    elif form == "json":
        content = json.dumps(
            [
                {"image_id": name, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.5}
                for x1, y1, x2, y2 in boxes
            ]
        )
    else:
        content = json.dumps({"image_id": name, "boxes": boxes, "scores": [0.5] * 100, "labels": [wnid] * 100})
    path.write_text(content)
    if not refused:
        assert len(read_results(path, truth).table) == 100
        return
    with pytest.raises(ResultsError, match=r"x1, y1, x2, y2") as caught:
        read_results(path, truth)
    assert "x, y, width, height" in str(caught.value)
    assert "11 of 100" in str(caught.value)


def test_under_coco_they_are_what_pycocotools_makes_of_them(tmp_path: Path) -> None:
    """One negative side: an area below every range, which is passed over; two: a false positive."""
    boxes = [[10, 10, 50, 50], [200, 10, 60, 60], [10, 200, 70, 70]]
    truth_file = {
        "images": [{"id": number, "file_name": f"{number}.jpg", "width": 400, "height": 400} for number in (1, 2, 3)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 3 * image + place + 1, "image_id": image + 1, "category_id": 1, "bbox": box, "iscrowd": 0}
            | {"area": box[2] * box[3]}
            for image in range(3)
            for place, box in enumerate(boxes)
        ],
    }
    found = [
        {"image_id": image + 1, "category_id": 1, "bbox": box, "score": 0.5 - place / 10 - image / 100}
        for image in range(3)
        for place, box in enumerate(boxes)
    ]
    found += [{"image_id": 2, "category_id": 1, "bbox": [300, 300, 20, 20], "score": 0.1}] * 11
    (tmp_path / "truth.json").write_text(json.dumps(truth_file))
    values = []
    for odd in ([100, 20, -60, 30], [100, 90, -60, -30], [100, 90, 0, 30]):
        entries = [{"image_id": 1, "category_id": 1, "bbox": odd, "score": 0.9}, *found]
        (tmp_path / "found.json").write_text(json.dumps(entries))
        with contextlib.redirect_stdout(io.StringIO()):
            reference = COCO(str(tmp_path / "truth.json"))
            official = COCOeval(reference, reference.loadRes(str(tmp_path / "found.json")), "bbox")
            official.evaluate()
            official.accumulate()
            official.summarize()
        truth = read_coco_truth(tmp_path / "truth.json")
        table = read_results(tmp_path / "found.json", truth).table
        evaluation = evaluate_coco(truth, table)
        assert evaluation.mean_ap == pytest.approx(official.stats[1], abs=1e-12)
        assert evaluation.summary["AP"] == pytest.approx(official.stats[0], abs=1e-12)
        (ours,) = average_precisions(match(truth, table, "coco"), table, COCO_POINTS)
        assert ours == pytest.approx(official.stats[1], abs=1e-12)
        values.append(ours)
    assert values[0] == pytest.approx(1)
    assert values[1] < 0.95
