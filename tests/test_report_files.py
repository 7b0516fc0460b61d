"""A report as CSV and JSON: its numbers are those of the analyses, by name, and files of others are not replaced."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_evaluation import make_dataset, make_table, random_case

from detector.commands.targets import TABLES
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from detector.experiments.evaluation_run import EvaluationConfig, analyse
from detector.report.contents import Report
from detector.report.plain import as_plain, write_report
from detector.report.tables import HEADS, write_tables
from detector.report.text import format_report

Main = Callable[[list[str]], int]
CONFIG = EvaluationConfig(resamples=20, threshold_precision=0.5)


@pytest.fixture(scope="module")
def case() -> tuple[Truth, DetectionTable, Report]:
    truth, table = random_case(3)
    columns = {"light": ["day" if index % 3 else "night" for index in range(len(truth))]}
    others = {"mine": table, "fewer": table[: len(table) // 2]}
    return truth, table, analyse(CONFIG, truth, table, details=True, others=others, columns=columns)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_have_the_numbers_of_the_report(case: tuple[Truth, DetectionTable, Report], tmp_path: Path) -> None:
    truth, _, report = case
    paths = write_tables(tmp_path / "new" / "tables", truth, report)
    assert {path.stem for path in paths} == set(HEADS) == set(TABLES)
    tables = {path.stem: rows_of(path) for path in paths}
    assert {row["class"]: row["ap"] for row in tables["classes"]} == {
        key: "" if ap is None else str(ap) for key, ap in report.evaluation.ap.items()
    }
    assert report.thresholds
    assert report.thresholds.pooled
    assert report.thresholds.pooled.best
    assert report.thresholds.pooled.at_precision
    (pooled,) = [row for row in tables["thresholds"] if row["class"] == "(all classes)"]
    assert float(pooled["score"]) == report.thresholds.pooled.best.score
    assert float(pooled["low"]) <= float(pooled["score"]) <= float(pooled["high"])
    assert float(pooled["score_at_precision"]) == report.thresholds.pooled.at_precision.score
    assert pooled["score_at_recall"] == ""
    # The confusion matrix: each object and each detection that counts once.
    counts = [(row["object"], row["detected_as"], int(row["number"])) for row in tables["confusion"]]
    assert sum(count for real, _, count in counts if real != "(background)") == report.evaluation.counts["objects"]
    assert report.confusion
    assert sum(count for _, _, count in counts) == report.confusion.matrix.sum()
    causes = [row for row in tables["causes"] if not row["cause"].startswith("false")]
    for row in causes:
        mine = [int(other["number"]) for other in causes if other["class"] == row["class"]]
        assert sum(mine) == int(row["objects"]) - int(row["found"])
    assert [row["size"] for row in tables["sizes"]] == ["small", "medium", "large"]
    assert {(row["column"], row["value"]) for row in tables["slices"]} >= {("light", "day"), ("light", "night")}
    bins = [row for row in tables["calibration"] if row["low_score"]]
    assert len(bins) == 10
    assert {row["image"] for row in tables["label_errors"]} <= set(truth.image_ids)
    (mean,) = [row for row in tables["comparison"] if row["class"] == "(mean)"]
    assert (mean["first"], mean["second"]) == ("mine", "fewer")
    assert float(mean["low"]) <= float(mean["difference"]) <= float(mean["high"])


def test_a_file_of_each_table_is_known_again(case: tuple[Truth, DetectionTable, Report], tmp_path: Path) -> None:
    for path in write_tables(tmp_path, *case[::2]):
        assert path.read_bytes().startswith(TABLES[path.stem])


def test_json_has_everything_by_name(case: tuple[Truth, DetectionTable, Report], tmp_path: Path) -> None:
    truth, _, report = case
    write_report(tmp_path / "report.json", truth, report)
    content: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    assert content == as_plain(truth, report)
    assert next(iter(content)) == "protocol"
    keys = list(content["ap"])
    lists = {"sizes", "slices", "object_counts", "label_errors"}
    assert content.keys() >= lists | {"thresholds", "causes", "confusion", "calibration", "diagnosis", "interval"}
    assert list(content["thresholds"]["by_class"]) == list(content["calibration"]["error_by_class"]) == keys
    assert content["thresholds"]["by_class"][keys[3]] is None  # without objects
    curve = content["thresholds"]["by_class"][keys[0]]["curve"]
    assert curve["scores"] == sorted(curve["scores"], reverse=True)
    assert len({len(values) for values in curve.values()}) == 1
    assert content["confusion"]["rows"] == [*keys, "background"]
    assert content["confusion"]["columns"] == [*keys, "missed"]
    assert np.sum(content["confusion"]["matrix"][:-1]) == content["counts"]["objects"]
    (pair,) = content["comparison"]["pairs"]
    assert (pair["first"], pair["second"]) == ("mine", "fewer")
    assert list(pair["by_class"]) == keys
    for case_ in pair["first_alone"]["found_first"]:
        assert case_["image"] in truth.image_ids
        assert case_["class"] in keys


def test_what_was_not_asked_for_is_not_there(tmp_path: Path) -> None:
    truth, table = random_case(0)
    report = analyse(EvaluationConfig(resamples=0), truth, table)
    assert [path.stem for path in write_tables(tmp_path, truth, report)] == ["classes", "causes"]
    assert len(report.causes) == 1  # the worst class
    assert not {"thresholds", "interval", "comparison", "label_errors", "warnings"} & as_plain(truth, report).keys()


def test_the_last_lines_answer() -> None:
    box, far = (0, 0, 100, 100), (300, 300, 400, 400)
    truth = make_dataset([[(box, 0), (far, 1)], [(box, 0)], [(box, 1)]], 2)
    table = make_table([(0, 0, 0.9, box), (1, 0, 0.8, box), (0, 1, 0.7, far), (2, 0, 0.75, box), (1, 1, 0.2, far)])
    lines = format_report(analyse(replace(CONFIG, resamples=0), truth, table)).splitlines()
    assert lines[-3:] == [
        "Worst class: class_1, AP 0.5000 on 2 objects (mean AP of the classes 0.7500)",
        "Why: From score 0.7000 on, 1 of its 2 objects are found with precision 1.00. "
        "Of the 1 missed, 1 taken for another class (mostly class_0).",
        "Threshold: 0.7000 for all classes (F1 0.7500, precision 0.7500, recall 0.7500); "
        'for precision 0.5: 0.2000 (recall 0.7500). Each class\'s own is in the column "from score".',
    ]


@pytest.mark.parametrize("objects", [1, 3])
def test_odd_cases_have_a_report(objects: int, tmp_path: Path) -> None:
    box = (0, 0, 100, 100)
    truth = make_dataset([[(box, 0)]] * objects, 1)
    for table in (
        make_table([]),
        make_table([(0, 0, 0.5, box)] * 3),
        make_table([(0, 0, -4.0, box), (0, 0, 7.0, box)]),
    ):
        report = analyse(CONFIG, truth, table, details=True)
        text = format_report(report, diagnosis=True, width=80)
        assert max(map(len, text.splitlines())) <= 80
        assert "Worst class: class_0" in text
        write_tables(tmp_path, truth, report)
        json.dumps(as_plain(truth, report), allow_nan=False)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 200}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0}
        ],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50], "score": 0.9}]
    Path("truth.json").write_text(json.dumps(truth))
    for name in ("mine.json", "yours.json"):
        Path(name).write_text(json.dumps(found))
    return tmp_path


COMMAND = ["--protocol", "coco", "--detections", "mine.json", "--annotations", "truth.json", "resamples=5"]


def test_eval_map_writes_tables_and_replaces_only_its_own(
    tool: Callable[[str], Main], files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*COMMAND, "--compare", "yours.json", "--csv", "tables", "sizes=[0,20,60]"]
    assert tool("eval_map")(arguments) == 0
    assert [row["size"] for row in rows_of(Path("tables/sizes.csv"))] == ["0 to 20 px", "20 to 60 px", "60 px or more"]
    assert tool("eval_map")(arguments) == 0
    Path("tables/sizes.csv").write_text("my own table\n")
    assert tool("eval_map")(arguments) == 1
    assert "tables/sizes.csv: exists and is not a CSV table that this command wrote" in capsys.readouterr().err
    assert tool("eval_map")([*COMMAND, "--csv", "mine.json"]) == 1
    assert "mine.json: a file; the tables are written into a folder" in capsys.readouterr().err


@pytest.mark.parametrize("names", [["mine.json"], ["yours.json", "./yours.json"]])
def test_a_file_is_not_compared_with_itself(
    tool: Callable[[str], Main], files: Path, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        tool("eval_map")([*COMMAND, *(word for name in names for word in ("--compare", name))])
    assert caught.value.code == 2
    assert "--compare names a file twice, or the detections that are scored" in capsys.readouterr().err


@pytest.mark.parametrize("sizes", ["[32,32]", "[-1,5]", "[60,20]"])
def test_sizes_rise(tool: Callable[[str], Main], files: Path, sizes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("eval_map")([*COMMAND, f"sizes={sizes}"]) == 1
    assert "sizes must be rising numbers from 0" in capsys.readouterr().err


def test_all_protocols_side_by_side(
    tool: Callable[[str], Main], files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--detections", "mine.json", "--annotations", "truth.json", "resamples=5", "--json", "out.json"]
    assert tool("eval_map")(["--protocol", "all", *arguments]) == 0
    assert "PASCAL VOC 2007, 11 points, IoU 0.5" in capsys.readouterr().out
    content = json.loads(Path("out.json").read_text())
    for protocol in ("ilsvrc", "voc", "voc07", "coco"):
        assert tool("eval_map")(["--protocol", protocol, *arguments[:-1], f"{protocol}.json"]) == 0
        alone = json.loads(Path(f"{protocol}.json").read_text())
        assert content["evaluations"][protocol]["ap"] == alone["ap"]
    assert [row["protocol"] for row in content["rows"]] == ["ilsvrc", "voc", "voc07", "coco", "coco", "coco"]
    assert tool("eval_map")(["--protocol", "all", *arguments]) == 0  # and what the first one wrote is written again


@pytest.mark.parametrize(
    "option", [["--diagnose"], ["--report", "x.html"], ["--csv", "x"], ["--compare", "yours.json"]]
)
def test_all_protocols_have_no_analyses(
    tool: Callable[[str], Main], files: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        tool("eval_map")(["--protocol", "all", *COMMAND[2:], *option])
    assert caught.value.code == 2
    assert f"{option[0]} needs one protocol: ilsvrc, voc, voc07, coco" in capsys.readouterr().err
