"""The end of a training on regions: its detector, what it shows, and that the printed commands do the same."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pages import read, words
from test_operating_points import counted, random_case

from detector import Detector, DetectorConfig
from detector.config import load_config
from detector.data.dataset import DataConfig, DatasetKind
from detector.data.labelled_images import ImagesConfig
from detector.evaluation import Evaluation, OperatingPoint, best_f1_points
from detector.evaluation.matching import match
from detector.evaluation.operating_points import points_at
from detector.operating_points import read_points
from detector.report.training_page import Outcome
from detector.training import own_detector
from detector.training.detection_ap import DetectionAP
from detector.training.ending import next_commands
from detector.training.images import ImageTrainingConfig
from detector.training.multibox import MultiBoxTrainingConfig
from detector.training.own_detector import describe_outcome
from detector.training.record import read_metrics
from detector.training.regions import FineTuneConfig

Main = Callable[[list[str]], int]
ODD = ["<b>Größe</b>", 'it\'s "x"']


# ---- precision and recall from given scores


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", ["voc", "ilsvrc"])
def test_what_is_shown_is_worth_what_a_table_of_it_alone_is(rule: str, seed: int) -> None:
    truth, table = random_case(seed)
    matches = match(truth, table, rule)
    scores = [0.25, 0.5, 0.125, 0.9]
    found = points_at(matches, table, scores)
    for label, score in enumerate(scores):
        part = table[(table.labels == label) & (table.scores >= score)]
        hits, false, objects = counted(truth, part, rule, {label})
        point = found[label]
        if not objects or not hits + false:
            assert point is None
            continue
        assert point is not None
        assert (point.score, point.precision, point.recall) == (score, hits / (hits + false), hits / objects)
    assert found[2] is None  # no objects
    assert found[3] is None  # no detections


def test_the_best_points_are_worth_what_they_say() -> None:
    truth, table = random_case(1)
    matches = match(truth, table, "voc")
    points = best_f1_points(matches, table).by_class
    again = points_at(matches, table, [point.score if point else 2.0 for point in points])
    assert [one.f1 for one in again if one] == pytest.approx([one.f1 for one in points if one])


# ---- a run and its commands


@pytest.fixture
def workplace(shapes: Path, toy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A config of a toy training whose detector finds something: the shapes, under odd names."""
    root = tmp_path / "Bilder äß"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for path in shapes.rglob("*"):
        if path.suffix == ".xml":
            text = path.read_text()
            for name, odd in zip(("square", "disc"), ODD, strict=True):
                text = text.replace(f"<name>{name}</name>", f"<name>{odd.replace('<', '&lt;')}</name>")
            (root / path.relative_to(shapes)).write_text(text, encoding="utf-8")
        elif path.is_file():
            (root / path.relative_to(shapes)).write_bytes(path.read_bytes())
    data = {"kind": "voc", "root": str(root), "classes": ODD}
    settings: dict[str, Any] = {
        "name": "toy", "precision": "float32", "init": str(toy_checkpoint),
        "train": data | {"split": "train"}, "val": data | {"split": "val"},
        "proposals": {"width": 0, "min_width": 8}, "regions": {"size": 64, "context": 4}, "linear_batches": 30,
        "epochs": 2, "batches_per_epoch": 2, "batch": 16, "foreground": 6, "val_batches": 1, "workers": 0,
        "ap_every": 1, "regression_windows": 20, "learning_rate": 0.0001,
    }  # fmt: skip
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    yield root
    signal.signal(signal.SIGTERM, handler)


def test_the_printed_commands_use_the_detector_that_was_measured(
    workplace: Path, tool: Callable[[str], Main], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool("train_classifier")(["--config", "toy.yaml", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    commands = dict(line.split(": ", 1) for line in captured.out.splitlines())
    reader = read(Path(commands["done"]))
    points = read_points(Path("runs/toy/best.points.json"))
    written = json.loads(points.path.read_text())

    # eval_map runs its own way over the same images; what it finds is what the training said.
    assert tool("eval_map")([*commands["evaluate"].split()[2:], "--device", "cpu", "resamples=0"]) == 0
    report = json.loads(Path("runs/toy_val/report.json").read_text())
    theirs = json.loads(Path("runs/toy_val/operating_points.json").read_text())
    assert report["mean_ap"] > 0.2
    assert theirs["detector"] == written["detector"]
    assert written["ap"] == pytest.approx(report["ap"], abs=1e-6)
    for key, score in theirs["scores"].items():
        assert points.scores[key] == pytest.approx(score, abs=1e-6)
    capsys.readouterr()

    # detect shows each class from there.
    image = str(workplace / "JPEGImages/val0.png")
    arguments = [image if word == "image.jpg" else word for word in commands["detect"].split()[2:]]
    assert tool("detect")([*arguments, "--device", "cpu"]) == 0
    assert "best.points.json" in capsys.readouterr().err
    record = json.loads(Path("detections/val0.json").read_text())
    assert record["min_scores"] == {key: round(score, 6) for key, score in points.scores.items()}

    # So does the page, and it has AP of the epochs under the classes' names.
    text = words(reader)
    for key in ODD:
        assert key in text
        assert f"{written['ap'][key]:.4f} {points.scores[key]:.3f}" in text
    assert f"mean AP on val {written['mean_ap']:.4f}" in text
    rows = read_metrics(Path("runs/toy"))
    for row in rows:
        assert row["val_ap"] == pytest.approx(np.mean([row[f"val_ap/{key}"] for key in ODD]))
    table = captured.err[captured.err.index("class ") :]
    assert f"{written['ap'][ODD[0]]:.4f}" in table
    lines = [
        line for line in captured.err.splitlines() if re.match(r"train_classifier: +(epoch|\d/2|class|mean) ", line)
    ]
    assert len(lines) == 6
    assert all(len(line) <= 80 for line in lines)


def test_without_box_regression_and_soft_nms_it_is_the_ap_of_the_kept_epoch(
    workplace: Path, tool: Callable[[str], Main], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_detector.own_detector

    def greedy(config: FineTuneConfig, folder: Path) -> DetectorConfig:
        detector = own(config, folder)
        return replace(detector, suppression=replace(detector.suppression, soft_sigma=0.0))

    monkeypatch.setattr(own_detector, "own_detector", greedy)
    settings = ["regression_windows=0", "choose_by=val_ap"]
    assert tool("train_classifier")(["--config", "toy.yaml", "--device", "cpu", *settings]) == 0
    rows = read_metrics(Path("runs/toy"))
    written = json.loads(Path("runs/toy/best.points.json").read_text())
    assert written["mean_ap"] == pytest.approx(max(row["val_ap"] for row in rows), abs=1e-6)
    assert written["detector"]["weights"]
    assert "regression" not in written["detector"]


def test_resuming_a_finished_run_measures_nothing_again(
    workplace: Path, tool: Callable[[str], Main], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = tool("train_classifier")
    command = ["--config", "toy.yaml", "--device", "cpu", "epochs=1"]
    measure = DetectionAP.detect

    def killed(self: DetectionAP, detector: Detector, *rest: Any) -> Any:
        if detector.config.suppression.soft_sigma:  # the finished one, not that of an epoch
            raise KeyboardInterrupt
        return measure(self, detector, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionAP, "detect", killed)
        assert train(command) == 130
    folder = Path("runs/toy")
    assert not (folder / "best.points.json").exists()
    assert train([*command, "--resume", "auto"]) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert "best.points.json" in before
    monkeypatch.setattr(DetectionAP, "detect", lambda *_: pytest.fail("measured again"))
    assert train([*command, "--resume", "auto", "operating_points=false"]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("way", ["off", "no objects"])
def test_a_run_without_points_says_so(
    workplace: Path,
    tool: Callable[[str], Main],
    way: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ["train_from=none", "ap_every=0", "linear_batches=1", "regression_windows=0"]
    if way == "off":
        settings += ["operating_points=false"]
    else:
        monkeypatch.setattr(DetectionAP, "has_objects", False)
    assert tool("train_classifier")(["--config", "toy.yaml", "--device", "cpu", *settings]) == 0
    captured = capsys.readouterr()
    assert "no operating points" in captured.err
    assert not Path("runs/toy/best.points.json").exists()
    assert load_config(DetectorConfig, "runs/toy/detector.yaml").regression is False
    text = words(read(Path("runs/toy/report.html")))
    assert "Finished after epoch 0" in text
    assert "Mistakes" not in text


def test_a_long_list_of_classes_shows_the_worst() -> None:
    keys = [f"class {number} with a long name" for number in range(40)]
    ap = [None if number == 3 else 1 - number / 40 for number in range(40)]
    evaluation = Evaluation(
        "voc", 0.5, dict(zip(keys, ap, strict=True)), 0.5, 0.5, {}, {}, {}, {}, names=dict(zip(keys, keys, strict=True))
    )
    points = (OperatingPoint(0.25, 0.5, 0.75, 0.6),) * 39 + (None,)
    lines = describe_outcome(Outcome(evaluation, (0.25,) * 40, points))
    assert [line.split()[0] for line in lines] == ["class"] * 21 + ["mean"]
    assert lines[1].split()[-4:] == [f"{1 - 39 / 40:.4f}", "0.250", "-", "-"]
    assert lines[2].split()[-4:] == [f"{1 - 38 / 40:.4f}", "0.250", "0.500", "0.750"]
    assert lines[-2].startswith("class 20 with a lon…")
    assert all(len("train_classifier: " + line) <= 80 for line in lines)


def test_the_next_commands_of_each_kind_of_training(shapes: Path) -> None:
    data = DataConfig(DatasetKind.voc, str(shapes), "train")
    runs, folders = [FineTuneConfig(train=data, val=data, init="x")] * 2, [Path("runs/a b-1"), Path("runs/a b-2")]
    models = "models=[runs/a b-1/best.safetensors,runs/a b-2/best.safetensors]"
    found = {text: shlex.split(words) for text, words in next_commands(runs, folders).items()}
    assert found["done"] == ["runs/a b-1/report.html", "runs/a b-2/report.html"]
    assert found["evaluate"][-4:] == [
        "--config",
        "runs/a b-1/evaluation.yaml",
        "name=a b-1_ensemble",
        f"detector.{models}",
    ]
    assert found["detect"][-3:] == ["--config", "runs/a b-1/detector.yaml", models]
    boxes = MultiBoxTrainingConfig(train=data, val=data, init="x")
    for layer, page in (("none", "runs/m/head/report.html"), ("conv1", "runs/m/report.html")):
        found = {"done": next_commands([replace(boxes, train_from=layer)], [Path("runs/m")])["done"].split()}
        assert found["done"] == [page]
    images = ImagesConfig(root="x")
    whole = next_commands([ImageTrainingConfig(train=images, val=images)], [Path("runs/i")])
    assert whole["classify"].endswith("image.jpg --models runs/i/best.safetensors")
