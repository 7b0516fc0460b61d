"""Options of eval_map that do not apply are refused, those that do are honoured; a part of a COCO file by a list."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.config import ConfigError, load_config
from detector.data.dataset import DataConfig, DatasetKind
from detector.data.ground_truth import DataError
from detector.data.ilsvrc import det_classes
from detector.evaluation import DetectionTable, ResultsError, evaluate_ilsvrc, read_results
from detector.evaluation.names import UNKNOWN, UNLISTED, Names
from detector.evaluation.protocols import Protocol, ScoringConfig, evaluate_table
from detector.evaluation.truth import ILSVRC, Truth
from detector.evaluation.truth_files import listed_part, read_coco_truth, read_truth
from detector.evaluation.truth_paths import open_truth
from detector.experiments.evaluation_run import EvaluationConfig, analyse, detector_warnings
from detector.experiments.stages import FOUND, Fate
from detector.report.plain import write_report

Main = Callable[[list[str]], int]


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four images of a COCO file with an object each, of which detections find those of images 7 and 30."""
    monkeypatch.chdir(tmp_path)
    names = {7: "seven.jpg", 20: "sub/twenty.jpg", 3: "IMG (3).jpg", 30: "thirty.png"}
    truth = {
        "images": [{"id": i, "file_name": name, "width": 200, "height": 200} for i, name in names.items()],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0}
            for i in names
        ],
    }
    found = [
        {"image_id": i, "category_id": 1, "bbox": [x, 10, 50, 50], "score": score}
        for i, x, score in [(7, 10, 0.9), (20, 120, 0.4), (3, 120, 0.5), (30, 10, 0.8)]
    ]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    return tmp_path


def score(tool: Callable[[str], Main], arguments: list[str], protocol: str = "coco") -> dict[str, Any]:
    command = ["--protocol", protocol, "--detections", "found.json", "--annotations", "truth.json", "resamples=0"]
    assert tool("eval_map")([*command, *arguments, "--json", "out.json"]) == 0
    report: dict[str, Any] = json.loads(Path("out.json").read_text())
    return report


@pytest.mark.parametrize(
    ("lines", "images", "mean_ap"),
    [
        ("7\n30\n", 2, 1.0),
        ("seven.jpg\nthirty.png\n", 2, 1.0),
        ("seven 1\nthirty -1\n", 2, 1.0),
        ("\n7\n\n3\n", 2, 0.5),
        ("sub/twenty.jpg\r\n", 1, 0.0),
        ("sub/twenty\nIMG (3).jpg\nseven\n", 3, 1 / 3),
        ("IMG (3)\nthirty", 2, 0.5),
        ("000003\n7\n20\n30\n", 4, 0.5),
    ],
)
@pytest.mark.parametrize("protocol", ["coco", "voc"])
def test_a_list_scores_a_part_of_a_coco_file(
    tool: Callable[[str], Main],
    coco: Path,
    lines: str,
    images: int,
    mean_ap: float,
    protocol: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The part scores as a file with those images and detections alone, up to COCO's 101 points."""
    (coco / "list.txt").write_bytes(lines.encode())
    report = score(tool, ["--image-list", "list.txt"], protocol)
    assert report["counts"]["images"] == report["counts"]["objects"] == report["counts"]["detections"] == images
    assert report["mean_ap"] == pytest.approx(mean_ap, abs=0.01)
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == (images < 4)
    assert all(f"{4 - images} of 4 detections" in line for line in warnings)


@pytest.mark.parametrize(
    ("lines", "named"),
    [("7\n8\n", "line 2.*8"), ("7\nseven.jpg\n", "line 2.*line 1"), ("\n", "list.txt"), (None, "list.txt")],
)
def test_lists_that_are_refused(coco: Path, lines: str | None, named: str) -> None:
    if lines is not None:
        (coco / "list.txt").write_text(lines)
    with pytest.raises(DataError, match=rf"list.txt.*{named}" if "line" in named else named):
        listed_part(read_coco_truth(coco / "truth.json"), coco / "list.txt")


def test_a_name_of_two_images_is_not_of_the_one_that_is_listed(coco: Path) -> None:
    """Nor is what begins like another name that image."""
    truth = read_coco_truth(coco / "truth.json")
    truth = replace(truth, paths=tuple(Path(name) for name in ("a/1.jpg", "b/1.jpg", "IMG.jpg", "IMG (1).jpg")))
    (coco / "list.txt").write_text("a/1.jpg\nIMG (1) 1\n")
    part = listed_part(truth, coco / "list.txt")
    assert part.image_ids == ("7", "30")
    names = Names(part)
    given = ["7", "a/1.jpg", "IMG (1)", "30", "20", "b/1", "IMG", "1.jpg", "IMG (2)"]
    assert [names.image(name) for name in given] == [0, 0, 1, 1, UNLISTED, UNLISTED, UNLISTED, UNKNOWN, UNKNOWN]


def test_detections_of_images_that_the_file_does_not_have_are_still_refused(coco: Path) -> None:
    (coco / "list.txt").write_text("7\n")
    entries = json.loads((coco / "found.json").read_text())
    (coco / "found.json").write_text(json.dumps([*entries, entries[0] | {"image_id": 31}]))
    with pytest.raises(ResultsError, match="'31'"):
        read_results(coco / "found.json", listed_part(read_coco_truth(coco / "truth.json"), coco / "list.txt"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--protocol", "coco", "--classes", "cat"], "class names"),
        (["--protocol", "voc", "--classes", "cat"], "class names"),
        (["--protocol", "coco", "--blacklist", "none.txt"], "blacklist"),
        (["--protocol", "voc", "--blacklist", "none.txt"], "blacklist"),
        (["--protocol", "ilsvrc", "--blacklist", "none.txt"], "blacklist"),
        (["--protocol", "voc", "backend=hotcoco"], "backend"),
        (["--protocol", "coco", "backend=fast"], "backend"),
        (["--protocol", "coco", "min_iou=0.7"], "min_iou"),
        (["--protocol", "coco", "--image-list", "none.txt"], "none.txt"),
        (["--protocol", "voc", "--image-list", "none.txt"], "none.txt"),
        (["--protocol", "coco", "--save", "out.csv"], "out.csv"),
        (["--protocol", "coco", "--save", "out.txt"], "out.txt"),
    ],
)
def test_options_that_do_not_apply_to_a_coco_file(
    tool: Callable[[str], Main], coco: Path, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--detections", "found.json", "--annotations", "truth.json", *arguments]
    assert tool("eval_map")(command) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert named in line
    assert not [path for path in coco.iterdir() if path.stem == "out"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--classes", "cat", "data.kind=coco", "data.root=."],
        ["--image-list", "list.txt", "data.kind=coco", "data.root=."],
        ["--protocol", "coco", "--annotations", "truth.json", "data.root=."],
        ["--truth-boxes", "xyxy", "data.kind=coco", "data.root=."],
    ],
)
def test_options_that_exclude_each_other(tool: Callable[[str], Main], coco: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tool("eval_map")(["--detections", "found.json", *arguments])
    assert caught.value.code == 2


def test_classes_are_not_for_ilsvrcs_xml(tmp_path: Path) -> None:
    config = ScoringConfig(protocol=Protocol.ilsvrc)
    with pytest.raises(DataError, match="class names"):
        open_truth(tmp_path, tmp_path / "list.txt", config, ["cat"])
    with pytest.raises(DataError, match="a list of the images"):
        open_truth(tmp_path, None, config)
    with pytest.raises(DataError, match="nowhere"):
        open_truth(tmp_path / "nowhere", tmp_path / "list.txt", config, ["cat"])


def test_a_blacklist_is_for_ilsvrc(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="blacklist"):
        load_config(EvaluationConfig, None, ["protocol=voc", "blacklist=ilsvrc2014"])
    with pytest.raises(DataError, match="blacklist"):
        read_truth(DataConfig(DatasetKind.coco, str(tmp_path)), "ilsvrc2014")


@pytest.mark.parametrize("setting", [{"classes": ["cat"]}, {"one_based": False}, {"boxes_per_class": 5}])
def test_settings_of_another_kind_of_data_are_refused(coco: Path, setting: dict[str, Any]) -> None:
    data = DataConfig(DatasetKind.coco, str(coco), annotations="truth.json", images=".")
    assert len(read_truth(data)) == 4
    with pytest.raises(DataError, match=next(iter(setting))):
        read_truth(replace(data, **setting))


# ---- groups, reports, fates


def ilsvrc_truth(blacklist: frozenset[tuple[int, int]] = frozenset()) -> Truth:
    """Two images with an accordion, an airplane and an ant each."""
    boxes = np.tile([[0.0, 0, 49, 49], [60, 0, 109, 49], [0, 60, 49, 109]], (2, 1))
    return Truth(
        name="toy",
        classes=det_classes(),
        image_ids=("a", "b"),
        paths=(Path("a.JPEG"), Path("b.JPEG")),
        sizes=np.full((2, 2), 200),
        numbers=np.array([1, 2]),
        image_index=np.repeat([0, 1], 3),
        labels=np.tile([0, 1, 2], 2),
        boxes=boxes,
        difficult=np.zeros(6, np.bool_),
        crowd=np.zeros(6, np.bool_),
        areas=np.full(6, 2500.0),
        convention=ILSVRC,
        blacklist=blacklist,
    )


def table_of(truth: Truth, rows: list[int]) -> DetectionTable:
    scores = np.linspace(0.9, 0.8, len(rows))
    return DetectionTable(truth.image_index[rows], truth.labels[rows], scores, truth.boxes[rows], ILSVRC)


@pytest.mark.parametrize("names", [["accordion", "airplane"], ["n02672831", "n02691156"], ["accordion", "n02691156"]])
def test_groups_by_name_or_wnid(names: list[str]) -> None:
    truth = ilsvrc_truth()
    table = table_of(truth, [0, 3, 1])
    config = EvaluationConfig(protocol=Protocol.ilsvrc, groups={"music": names})
    assert evaluate_table(truth, table, config).summary["mean of music"] == pytest.approx((1 + 1 / 2) / 2)
    with pytest.raises(ResultsError, match=r"groups.music.*bee hive"):
        evaluate_table(truth, table, replace(config, groups={"music": ["bee hive"]}))


def test_an_evaluation_is_not_written_into(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = ilsvrc_truth()
    table = table_of(truth, [0])
    before = evaluate_ilsvrc(truth, table)
    monkeypatch.setattr("detector.evaluation.protocols.evaluate_ilsvrc", lambda *_, **__: before)
    summary = dict(before.summary)
    config = EvaluationConfig(protocol=Protocol.ilsvrc, groups={"music": ["accordion"]})
    assert evaluate_table(truth, table, config).summary == {**summary, "mean of music": 0.5}
    assert before.summary == summary


@pytest.mark.parametrize("protocol", Protocol)
def test_differences_of_classes_have_their_names(tmp_path: Path, protocol: Protocol) -> None:
    truth = ilsvrc_truth()
    config = EvaluationConfig(protocol=protocol, resamples=10)
    mine, others = table_of(truth, [0, 3, 1]), table_of(truth, [0, 1, 4, 5])
    report = analyse(config, truth, mine, others={"mine": mine, "others": others})
    write_report(tmp_path / "report.json", truth, report)
    content = json.loads((tmp_path / "report.json").read_text())
    (pair,) = content["comparison"]["pairs"]
    differences = {key: one["value"] for key, one in pair["by_class"].items() if one is not None}
    keys = ["n02672831", "n02691156", "n02219486"] if protocol is Protocol.ilsvrc else ["accordion", "airplane", "ant"]
    assert differences == pytest.approx(dict(zip(keys, [-0.5, 0.5, 0.5], strict=True)), abs=0.06)
    assert pair["by_class"].keys() == content["ap"].keys()


def test_blacklisted_objects_have_no_fate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    truth = ilsvrc_truth(blacklist=frozenset({(0, 1)}))
    table = table_of(truth, [0, 3])
    config = EvaluationConfig(protocol=Protocol.ilsvrc, name="run", resamples=0)
    fates = {
        name: [Fate(label, [0.0] * 4, FOUND if label == 0 else "never proposed", 0.5) for label in range(3)]
        for name in truth.image_ids
    }
    monkeypatch.setattr("detector.experiments.evaluation_run.read_fates", lambda *_: fates)
    monkeypatch.setattr("detector.experiments.evaluation_run.ORACLES", ())
    report = analyse(config, truth, table, stages=True)
    assert report.fates is not None
    assert {stage: count for stage, count in report.fates.items() if count} == {FOUND: 2, "never proposed": 3}
    assert sum(report.fates.values()) == report.evaluation.counts["objects"]


def test_a_threshold_for_showing_is_warned_of() -> None:
    shown = load_config(EvaluationConfig, "voc07_test", ["detector.suppression.min_score=0.5"])
    (line,) = detector_warnings(shown)
    assert "detector.suppression.min_score=0.5" in line
    for overrides in ([], ["detector.extends=fast"], ["detector.extends=fast", "detector.suppression.min_score=0.001"]):
        assert detector_warnings(load_config(EvaluationConfig, "voc07_test", overrides)) == ()
