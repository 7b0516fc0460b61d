"""Operating points against all thresholds tried one by one; their file, whose they are, and what is shown by them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import CLASSES, picture, shared_classifier

from detector import Detector, DetectorConfig, evaluate
from detector.checkpoint import RegionClassifier, save_checkpoint
from detector.data.ground_truth import ClassTable
from detector.evaluation import (
    DetectionTable,
    OperatingPoint,
    OperatingPoints,
    ScoringConfig,
    Truth,
    best_f1_points,
    read_results,
    read_voc_truth,
)
from detector.evaluation.matching import HIT, IGNORED, match
from detector.evaluation.operating_points import ENOUGH, FEW, SHOWN, best_f1, score_curve, shortfalls, shown_scores
from detector.evaluation.truth import HALF_OPEN
from detector.model_files import SHIPPED
from detector.operating_points import (
    OperatingPointsError,
    identity_of,
    read_points,
    write_points,
)
from detector.regions.maps import SharedConfig
from detector.report.contents import Report
from detector.report.text import format_report
from detector.settings import CascadeConfig, SuppressionConfig
from detector.suppression import suppress
from proposals.settings import ProposalConfig

Main = Callable[[list[str]], int]
SHARED = SharedConfig(pyramid=[96, 192], region=64, grid=6)


def random_case(seed: int, images: int = 6, classes: int = 4) -> tuple[Truth, DetectionTable]:
    """Objects, some difficult or crowds, and detections near them and elsewhere, of which many share a score.

    The last class has objects and no detections, the one before it detections and no objects.
    """
    generator = np.random.default_rng(seed)
    objects, found = 24, 80
    index = np.sort(generator.integers(images, size=objects))
    labels = generator.choice([0, 1, 3][: classes - 1], objects)
    corner = generator.integers(0, 60, (objects, 2)).astype(np.float64)
    boxes = np.concatenate([corner, corner + generator.integers(10, 40, (objects, 2))], axis=1)
    names = tuple("abcdefgh"[:classes])
    truth = Truth(
        name="random",
        classes=ClassTable(names, tuple(f"n{label:08d}" for label in range(classes)), tuple(range(1, classes + 1))),
        image_ids=tuple(str(image) for image in range(images)),
        paths=tuple(Path(f"{image}.jpg") for image in range(images)),
        sizes=np.full((images, 2), 100),
        numbers=np.arange(1, images + 1),
        image_index=index,
        labels=labels,
        boxes=boxes,
        difficult=generator.random(objects) < 0.2,
        crowd=generator.random(objects) < 0.1,
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        convention=HALF_OPEN,
    )
    near = generator.integers(objects, size=found)
    moved = boxes[near] + generator.normal(0, 3, (found, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    own = np.where(generator.random(found) < 0.7, labels[near], generator.choice([0, 1, 2], found))
    own[own == 3] = 0
    return truth, DetectionTable(index[near], own, generator.integers(1, 8, found) / 8, moved)


def counted(truth: Truth, table: DetectionTable, rule: str, labels: set[int]) -> tuple[int, int, int]:
    """True positives, false positives and objects of some classes, by matching this table alone."""
    matches = match(truth, table, rule)
    mine = np.isin(table.labels, list(labels))
    hits = int((matches.status[mine] == HIT).sum())
    return hits, int((matches.status[mine] != IGNORED).sum()) - hits, int(matches.positives[list(labels)].sum())


def slowly(truth: Truth, table: DetectionTable, rule: str, labels: set[int]) -> OperatingPoint | None:
    """Every score tried as a threshold, the highest first: what is below it does not exist."""
    best = None
    for score in sorted(set(table.scores[np.isin(table.labels, list(labels))].tolist()), reverse=True):
        hits, false, objects = counted(truth, table[table.scores >= score], rule, labels)
        if hits and objects:
            precision, recall = hits / (hits + false), hits / objects
            f1 = 2 * hits / (2 * hits + false + objects - hits)
            if best is None or f1 > best.f1:
                best = OperatingPoint(score, precision, recall, f1)
    return best


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rule", ["voc", "ilsvrc", "coco"])
def test_all_thresholds_tried_one_by_one(rule: str, seed: int) -> None:
    truth, table = random_case(seed)
    matches = match(truth, table, rule)
    points = best_f1_points(matches, table)
    assert list(points.by_class) == [slowly(truth, table, rule, {label}) for label in range(4)]
    assert points.by_class[2] is points.by_class[3] is None
    with_objects = {label for label in range(4) if matches.positives[label]}
    assert points.pooled == slowly(truth, table, rule, with_objects)
    for point in points.by_class[:2]:
        assert point is not None
        assert point.f1 == pytest.approx(2 * point.precision * point.recall / (point.precision + point.recall))


def test_ignored_detections_change_nothing() -> None:
    """A detection on a difficult object is neither shown right nor shown wrong."""
    truth, table = random_case(0)
    for rule in ("voc", "coco"):
        matches = match(truth, table, rule)
        ignored = matches.status == IGNORED
        assert ignored.any()
        without = table[~ignored]
        assert best_f1_points(match(truth, without, rule), without) == best_f1_points(matches, table)


@pytest.mark.parametrize(
    ("scores", "hits", "positives", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 0, 1], 2, (0.9, 1.0, 0.5)),  # F1 2/3 at 0.9 and at 0.6: the higher score
        ([0.9, 0.9], [1, 0], 1, (0.9, 0.5, 1.0)),  # no threshold shows the first alone
        ([0.9, 0.9, 0.9], [0, 0, 1], 1, (0.9, 1 / 3, 1.0)),
        ([0.9, 0.8, 0.7], [0, 1, 1], 2, (0.7, 2 / 3, 1.0)),  # an envelope would have precision 2/3 at recall 1/2 too
        ([0.4], [1], 1, (0.4, 1.0, 1.0)),
        ([0.4], [0], 1, None),
        ([], [], 3, None),
    ],
)
def test_worked_cases(
    scores: list[float], hits: list[int], positives: int, expected: tuple[float, float, float] | None
) -> None:
    point = best_f1(score_curve(np.array(scores), np.array(hits, np.bool_), positives))
    assert (point and (point.score, point.precision, point.recall)) == expected


def test_a_class_with_few_objects_takes_the_pooled_threshold() -> None:
    point, pooled = OperatingPoint(0.3, 1.0, 1.0, 1.0), OperatingPoint(0.6, 0.5, 0.5, 0.5)
    points = OperatingPoints((point, point, None), pooled)
    assert shown_scores(points, [ENOUGH, ENOUGH - 1, ENOUGH]) == [0.3, 0.6, 0.6]
    assert shown_scores(OperatingPoints((None,), None), [ENOUGH]) is None
    assert shown_scores(points, [FEW - 3, 1, 1]) == [SHOWN] * 3  # few in all: both thresholds are chance
    assert shown_scores(points, [FEW - 2, 1, 1]) == [0.6] * 3


# ---- in an evaluation


@pytest.mark.parametrize("protocol", ["voc", "voc07", "ilsvrc", "coco"])
def test_an_evaluation_has_them(protocol: str) -> None:
    truth, table = random_case(1)
    result = evaluate(truth, table, protocol)
    rule = {"voc07": "voc"}.get(protocol, protocol)
    points = best_f1_points(match(truth, table, rule), table)
    assert tuple(result.operating_points.values()) == points.by_class
    assert result.operating_points.keys() == result.ap.keys()
    assert result.pooled_point == points.pooled
    text = format_report(Report(result))
    assert text.splitlines()[1].split()[-4:] == ["best", "F1", "from", "score"]
    point = points.by_class[0]
    assert point is not None
    (row,) = [line.split() for line in text.splitlines() if line.startswith(next(iter(result.ap)))]
    assert row[-2:] == [f"{point.f1:.4f}", f"{point.score:.4f}"]
    (missed,) = [line.split() for line in text.splitlines() if line.startswith(list(result.ap)[3])]
    assert missed[-2:] == ["-", "-"]
    assert points.pooled is not None
    assert f"Threshold: {points.pooled.score:.4f} for all classes (F1 {points.pooled.f1:.4f}, " in text


# ---- suppression and detections


@pytest.mark.parametrize("soft_sigma", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_suppression_by_class_is_a_filter_before_the_limit(seed: int, soft_sigma: float) -> None:
    generator = np.random.default_rng(seed)
    corner = generator.random((40, 3, 2)) * 60
    boxes = np.concatenate([corner, corner + 10 + generator.random((40, 3, 2)) * 30], axis=2)
    probabilities = generator.dirichlet(np.ones(4), 40).astype(np.float32)
    config = SuppressionConfig(min_score=0.0, limit=10_000, soft_sigma=soft_sigma)
    everything = suppress(boxes, probabilities, config)
    # The lowest score that is kept of class 1 is one that occurs, so it must be kept itself.
    own = np.sort(everything.scores[everything.labels == 1])
    min_scores = np.array([0.4, own[len(own) // 2], 0.9])
    expected = everything[everything.scores >= min_scores[everything.labels]]
    assert own[len(own) // 2] in expected.scores
    assert suppress(boxes, probabilities, config, min_scores) == expected
    assert suppress(boxes, probabilities, replace(config, min_score=0.95), min_scores) == expected
    assert suppress(boxes, probabilities, replace(config, limit=3), min_scores) == expected[:3]


# ---- their file


@pytest.fixture
def classifier() -> RegionClassifier:
    return shared_classifier(SHARED)


@pytest.fixture
def config(classifier: RegionClassifier, tmp_path: Path) -> DetectorConfig:
    """A detector of one file that leaves what is shown to operating points."""
    save_checkpoint(tmp_path / "net.safetensors", classifier, half=True)
    return DetectorConfig(
        [str(tmp_path / "net.safetensors")],
        ProposalConfig(width=0, min_width=8, max_boxes=30),
        SuppressionConfig(min_score=None, soft_sigma=0.3),
        precision="float32",
    )


def write(path: Path, config: DetectorConfig, scores: tuple[float, float] = (0.3, 0.6)) -> Detector:
    """A file of operating points of a detector; returns the detector."""
    detector = Detector.load(replace(config, operating_points=""), device="cpu")
    points = OperatingPoints(
        tuple(OperatingPoint(score, 0.5, 0.5, 0.5) for score in scores), OperatingPoint(0.2, 0.5, 0.5, 0.5)
    )
    identity = identity_of(detector.config, detector.members, detector.rejection)
    assert write_points(path, identity, detector.classes, points, [ENOUGH] * 2, {"data": "toy val, 3 images"})
    return detector


def test_the_file(config: DetectorConfig, tmp_path: Path) -> None:
    path = tmp_path / "new" / "points.json"
    detector = write(path, config)
    found = read_points(path)
    assert (found.scores, found.data) == ({"square": 0.3, "disc": 0.6}, "toy val, 3 images")
    assert found.detector == identity_of(config, detector.members, None)
    content = json.loads(path.read_text())
    half = {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert content["operating_points"]["square"] == {"score": 0.3, **half, "objects": ENOUGH}
    assert content["pooled_point"] == {"score": 0.2, **half}
    nothing = OperatingPoints((None, None), None)
    assert not write_points(tmp_path / "nothing.json", {}, CLASSES, nothing, [0, 0], {"data": ""})
    assert not (tmp_path / "nothing.json").exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": "other"}', '{"format": "googlenet-rcnn operating points 1", "scores": 3}']
)
def test_other_files_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    with pytest.raises(OperatingPointsError, match=r"no operating points .*mine\.json; measure .*eval"):
        read_points(path)
    path.write_text(content)
    with pytest.raises(OperatingPointsError, match=r"mine\.json holds no operating points.*operating_points=''"):
        read_points(path)


def test_a_score_of_every_class_in_its_range(config: DetectorConfig, tmp_path: Path) -> None:
    path = tmp_path / "net.points.json"
    write(path, config)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"scores": {"square": 0.3}}))
    with pytest.raises(OperatingPointsError, match=r"net\.points\.json has no score of disc"):
        Detector.load(config, device="cpu")
    path.write_text(json.dumps(content | {"scores": {"square": 0.3, "disc": 1.5}}))
    with pytest.raises(OperatingPointsError, match="not in \\[0, 1\\]"):
        read_points(path)


OTHERS: dict[str, dict[str, Any]] = {
    "suppression.soft_sigma": {"suppression": SuppressionConfig(None, soft_sigma=0.5)},
    "mirror": {"mirror": True},
    "cascade.threshold": {"cascade": CascadeConfig(0.1)},
    "proposals.max_boxes": {"proposals": ProposalConfig(width=0, min_width=8, max_boxes=20)},
}
SAME: list[dict[str, Any]] = [
    {"batch": 3},
    {"precision": "bfloat16"},
    {"backend": "onnxruntime"},
    {"models": ["elsewhere"]},
    {"suppression": SuppressionConfig(0.4, limit=3, soft_sigma=0.3)},
    {"suppression": SuppressionConfig(None, max_iou=0.7, soft_sigma=0.3)},  # soft-NMS has no use for it
    {"cascade": CascadeConfig(0.0, best=30, near=0.7)},  # without a threshold all pass
]


def test_the_identity_is_what_scores_depend_on(config: DetectorConfig, classifier: RegionClassifier) -> None:
    own, two = (identity_of(config, members, None) for members in ([classifier], [classifier] * 2))
    assert own == json.loads(json.dumps(own))
    assert two == own | {"weights": own["weights"] * 2}
    for changes in SAME:
        assert identity_of(replace(config, **changes), [classifier] * 2, None) == two, changes
    for key, changes in OTHERS.items():
        other = identity_of(replace(config, **changes), [classifier] * 2, None)
        assert [name for name in {**two, **other} if two.get(name) != other.get(name)] == [key]
    assert identity_of(replace(config, cascade=CascadeConfig(0.1)), [classifier], None) == own  # no other model
    greedy = [replace(config, suppression=SuppressionConfig(None, max_iou)) for max_iou in (0.3, 0.4)]
    assert identity_of(greedy[0], [classifier], None) != identity_of(greedy[1], [classifier], None)
    renamed = replace(classifier, classes=replace(CLASSES, names=("disc", "square")))
    assert identity_of(config, [renamed], None) != own
    classifier.network.fc.bias.data[0] += 1
    assert identity_of(config, [classifier], None) != own


def test_a_regression_layer_counts_where_it_is_used(config: DetectorConfig, classifier: RegionClassifier) -> None:
    import torch

    with_layer = replace(config, regression=True)
    before = [identity_of(one, [classifier], None)["weights"] for one in (config, with_layer)]
    classifier.network.set_regression(torch.nn.Linear(classifier.network.fc.in_features * 9, 8))
    after = [identity_of(one, [classifier], None)["weights"] for one in (config, with_layer)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]


# ---- what rules


def shown(config: DetectorConfig) -> list[float] | None:
    found = Detector.load(config, device="cpu").min_scores
    return None if found is None else found.tolist()


def test_what_rules(config: DetectorConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert shown(config) == [SHOWN, SHOWN]
    assert "shown from a score of 0.5: no operating points of this detector" in caplog.text
    named = tmp_path / "named.json"
    write(named, config, (0.1, 0.2))
    write(tmp_path / "net.points.json", config)
    write(tmp_path / "mirror.points.json", replace(config, mirror=True), (0.7, 0.8))
    caplog.clear()
    assert shown(config) == [0.3, 0.6]
    assert "from scores of 0.30 to 0.60: net.points.json (toy val, 3 images)" in caplog.text
    assert shown(replace(config, mirror=True)) == [0.7, 0.8]
    assert shown(replace(config, operating_points=str(named))) == [0.1, 0.2]
    assert shown(replace(config, operating_points="")) == [SHOWN, SHOWN]
    explicit = replace(config, suppression=replace(config.suppression, min_score=0.25))
    assert shown(explicit) is None
    caplog.clear()
    assert shown(replace(explicit, operating_points=str(named))) is None
    assert "min_score=0.25 rules" in caplog.text


def test_points_of_another_detector(config: DetectorConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "net.points.json"
    write(path, config)
    other = replace(config, proposals=replace(config.proposals, max_boxes=20))
    with pytest.raises(OperatingPointsError, match=r"net\.points\.json belongs to another detector: proposals"):
        Detector.load(replace(other, operating_points=str(path)), device="cpu")
    caplog.set_level(logging.INFO)
    assert shown(other) == [SHOWN, SHOWN]
    assert "net.points.json differs in proposals.max_boxes" in caplog.text
    path.write_text("{}")
    assert shown(config) == [SHOWN, SHOWN]
    assert "net.points.json holds no operating points" in caplog.text


def test_what_a_detector_shows(config: DetectorConfig, tmp_path: Path) -> None:
    everything = Detector.load(
        replace(config, suppression=replace(config.suppression, min_score=0.0)), device="cpu"
    ).score(picture())
    found = everything.detections()
    medians = tuple(float(np.median(found.scores[found.labels == label])) for label in range(2))
    write(tmp_path / "net.points.json", config, (medians[0], medians[1]))
    detector = Detector.load(config, device="cpu")
    expected = found[found.scores >= np.array(medians)[found.labels]]
    assert 0 < len(expected) < len(found)
    assert detector(picture()) == expected
    scored = detector.score(picture())
    assert scored.detections() == expected
    assert scored.detections(limit=2) == expected[:2]
    for thresholds in ({"min_score": 0.0}, {"min_score": 0.35}, {"min_score": 0.2, "max_iou": 0.5}):
        assert scored.detections(**thresholds) == everything.detections(**thresholds)  # type: ignore[arg-type]
    assert scored.detections(max_iou=0.5) == everything.detections(min_score=SHOWN, max_iou=0.5)


def test_an_evaluation_keeps_all_and_writes_them(
    tool: Callable[[str], Main], shapes: Path, config: DetectorConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of a user: evaluate on val, copy the file beside the weights, detect."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("detector.evaluation.operating_points.FEW", 6)
    write(tmp_path / "net.points.json", config, (0.99, 0.99))  # which nothing reaches
    settings = ["models=[net.safetensors]", "suppression.min_score=null", "suppression.soft_sigma=0.3"]
    settings += ["proposals={width: 0, min_width: 8, max_boxes: 30}", "precision=float32"]
    data = ["data.kind=voc", f"data.root={shapes}", "data.split=val", "data.classes=[square,disc]"]
    (tmp_path / "eval.yaml").write_text("name: toy\n")
    command = [
        "--config",
        "eval.yaml",
        *data,
        *(f"detector.{one}" for one in settings),
        "--device",
        "cpu",
        "resamples=0",
    ]
    assert tool("eval_map")(command) == 0
    report = json.loads(Path("runs/toy/report.json").read_text())
    assert report["counts"]["detections"] > 20
    written = json.loads(Path("runs/toy/operating_points.json").read_text())
    assert written["data"].endswith("3 images")
    for name, point in report["operating_points"].items():
        measured = written["operating_points"][name]
        assert measured == (point or {}) | {"objects": 3}
        assert written["scores"][name] == report["pooled_point"]["score"]  # 3 objects are not enough
    assert written["pooled_point"] == report["pooled_point"]
    cut = [*command[:2], "name=cut", *command[2:], "detector.suppression.min_score=0.3"]
    assert tool("eval_map")(cut) == 0
    assert not Path("runs/cut/operating_points.json").exists()

    (tmp_path / "toy.yaml").write_text("models: [net.safetensors]\n")
    photo = str(shapes / "JPEGImages/val0.png")
    ways = (
        ([], "named", ["operating_points=runs/toy/operating_points.json"], written["scores"]),
        ([], "flat", ["suppression.min_score=0.35"], {"square": 0.35, "disc": 0.35}),
        (["copy"], "auto", [], written["scores"]),
    )
    for copy, name, more, expected in ways:
        if copy:
            Path("net.points.json").write_bytes(Path("runs/toy/operating_points.json").read_bytes())
        arguments = [photo, "--config", "toy.yaml", "--output", name, "--device", "cpu", *settings, *more]
        assert tool("detect")(arguments) == 0
        record = json.loads(Path(f"{name}/val0.json").read_text())
        assert record["min_scores"] == {key: round(score, 6) for key, score in expected.items()}
        assert all(one["score"] >= record["min_scores"][one["label"]] for one in record["detections"])
        assert record["detections"]


def test_an_evaluation_chooses_them_for_a_precision_or_a_recall(
    tool: Callable[[str], Main],
    shapes: Path,
    config: DetectorConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The way of a user, on one run: the scores that detect shows from are those that reach the goal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("detector.evaluation.operating_points.FEW", 1)
    monkeypatch.setattr("detector.evaluation.operating_points.ENOUGH", 1)
    detector = ["models=[net.safetensors]", "suppression.min_score=null", "suppression.soft_sigma=0.3"]
    detector += ["proposals={width: 0, min_width: 8, max_boxes: 30}", "precision=float32"]
    data = ["data.kind=voc", f"data.root={shapes}", "data.split=val", "data.classes=[square,disc]"]
    Path("eval.yaml").write_text("name: toy\n")
    Path("toy.yaml").write_text("models: [net.safetensors]\n")
    command = ["--config", "eval.yaml", *data, *(f"detector.{one}" for one in detector), "--device", "cpu"]
    file, photo = Path("runs/toy/operating_points.json"), str(shapes / "JPEGImages/val0.png")
    assert tool("eval_map")([*command, "resamples=0"]) == 0
    best = json.loads(file.read_text())
    truth = read_voc_truth(shapes / "Annotations", shapes / "ImageSets/Main/val.txt", ["square", "disc"])
    table = read_results(Path("runs/toy/detections.json"), truth).table
    labels = {label: points for label in range(2) if (points := tried(truth, table, {label}))}
    for goal in ("precision", "recall"):
        # Every class and all together reach what the least of them reaches at best.
        reached = [max(getattr(point, goal) for point in points) for points in (*labels.values(), tried(truth, table))]
        wanted = min(one for one in reached if one > 0) * 0.9
        assert tool("eval_map")([*command, "resamples=0", f"threshold_{goal}={wanted}"]) == 0
        written = json.loads(file.read_text())
        assert written["data"].endswith(f"3 images, for {goal} {wanted:g}")
        pooled = chosen(tried(truth, table), goal, wanted)
        for label, name in enumerate(("square", "disc")):
            point = chosen(labels[label], goal, wanted) if label in labels else None
            assert written["scores"][name] == (point or pooled).score  # type: ignore[union-attr]
        assert written["scores"] != best["scores"]
        arguments = [
            photo,
            "--config",
            "toy.yaml",
            "--output",
            goal,
            "--device",
            "cpu",
            *detector,
            f"operating_points={file}",
        ]
        assert tool("detect")(arguments) == 0
        record = json.loads(Path(goal, "val0.json").read_text())
        assert record["min_scores"] == {key: round(score, 6) for key, score in written["scores"].items()}
        capsys.readouterr()
    assert tool("eval_map")([*command, "resamples=0", "threshold_precision=1"]) == 0
    assert "no score of all classes together reaches precision 1, so there are no" in capsys.readouterr().err
    assert not file.exists()  # that of the last goal would be taken for this one's


def tried(truth: Truth, table: DetectionTable, labels: set[int] | None = None) -> list[OperatingPoint]:
    """What each score of some classes is worth as a threshold, by VOC's rules, the highest first."""
    labels = labels or {0, 1}
    result = []
    for score in sorted(set(table.scores[np.isin(table.labels, list(labels))].tolist()), reverse=True):
        hits, false, objects = counted(truth, table[table.scores >= score], "voc", labels)
        result.append(OperatingPoint(score, hits / (hits + false), hits / objects, 0.0))
    return result


def chosen(points: list[OperatingPoint], goal: str, wanted: float) -> OperatingPoint | None:
    good = [point for point in points if getattr(point, goal) >= wanted]
    best = min if goal == "precision" else max
    return best(good, key=lambda point: point.score, default=None)


def test_a_goal_that_is_missed_is_said() -> None:
    point, pooled = OperatingPoint(0.3, 1.0, 1.0, 1.0), OperatingPoint(0.6, 0.5, 0.5, 0.5)
    keys, enough = list("abc"), [ENOUGH, ENOUGH, ENOUGH - 1]
    assert shortfalls(OperatingPoints((point, point, None), pooled), enough, keys, "recall 0.9") == []
    (line,) = shortfalls(OperatingPoints((point, None, None), pooled), enough, keys, "recall 0.9")
    assert line == "no score reaches recall 0.9 of b: shown from 0.6, the score of all"
    (line,) = shortfalls(OperatingPoints((point, point, None), pooled), [FEW - 1, 0, 0], keys, "recall 0.9")
    assert line == f"{FEW - 1} objects are too few to choose for recall 0.9: every class is shown from 0.5"
    (line,) = shortfalls(OperatingPoints((point, None, None), None), enough, keys, "precision 0.9")
    assert line == "no score of all classes together reaches precision 0.9, so there are no operating points"


@pytest.mark.parametrize("name", ["threshold_precision", "threshold_recall"])
def test_a_goal_is_checked(name: str) -> None:
    for wrong in (0.0, 1.5, -0.1):
        with pytest.raises(ValueError, match=rf"{name} must be in \(0, 1\]"):
            ScoringConfig(**{name: wrong})
    assert ScoringConfig(**{name: 0.25}).threshold_goal == f"{name.removeprefix('threshold_')} 0.25"
    assert ScoringConfig().threshold_goal == ""
    with pytest.raises(ValueError, match="give one of them"):
        ScoringConfig(threshold_precision=0.5, threshold_recall=0.5)


@pytest.mark.parametrize("preset", ["fast", "default"])
def test_the_presets_have_theirs(preset: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    detector = Detector.load(preset, device="cpu")
    assert f"{preset}.points.json" in caplog.text
    written = json.loads((SHIPPED / f"{preset}.points.json").read_text())["scores"]
    assert detector.min_scores is not None
    assert dict(zip(detector.classes.names, detector.min_scores.tolist(), strict=True)) == written
    explicit = Detector.load(preset, device="cpu", overrides=["suppression.min_score=0.3"])
    assert explicit.min_scores is None
