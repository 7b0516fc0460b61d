"""`Evaluator`: what is given in any order, form and number of processes scores as files of all of it do."""

from __future__ import annotations

import io
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector import Detections, Evaluator, evaluate
from detector.data.ground_truth import DataError
from detector.evaluation import Evaluation, ResultsError
from detector.evaluation.results import class_keys
from proposals.errors import UserError

PROTOCOLS = ["voc", "voc07", "ilsvrc", "coco"]
CLASSES = {3: "cat", 7: "dog", 90: "Vögel am See"}
IDS = [2, 10, 11, 103, 1000, 1001, 20000]  # by number, not as texts

Given = dict[int, tuple[dict[str, Any], dict[str, Any]]]


def boxes_of(random: np.random.Generator, count: int) -> np.ndarray:
    corner = random.integers(0, 80, (count, 2))
    return np.concatenate([corner, corner + random.integers(4, 60, (count, 2))], axis=1).astype(np.float64)


def images(seed: int) -> Given:
    """Objects and detections of each image, with ties, crowds, images of neither, and doubled objects."""
    random = np.random.default_rng(seed)
    result = {}
    for image in IDS:
        count = int(random.integers(0, 6))
        boxes = boxes_of(random, count)
        near = np.repeat(boxes, 2, axis=0) + random.integers(-6, 7, (2 * count, 4))
        found = np.concatenate([near, boxes_of(random, int(random.integers(0, 4)))])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        labels = random.choice(list(CLASSES), count)
        guesses = np.concatenate([np.repeat(labels, 2), random.choice(list(CLASSES), len(found) - 2 * count)])
        truth = {"boxes": boxes, "labels": labels, "iscrowd": random.random(count) < 0.2}
        truth["area"] = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * random.uniform(0.3, 1, count)
        scores = random.integers(1, 8, len(found)) / 8
        result[image] = truth, {"boxes": found, "labels": guesses, "scores": scores}
    return result


def files(folder: Path, given: Given) -> tuple[Path, Path]:
    """The same as COCO's files, written here."""
    annotations, results = [], []
    for image, (truth, found) in given.items():
        for box, label, crowd, area in zip(
            *(truth[key].tolist() for key in ("boxes", "labels", "iscrowd", "area")), strict=True
        ):
            x1, y1, x2, y2 = box
            row = {"image_id": image, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            annotations.append(row | {"id": len(annotations) + 1, "area": area, "iscrowd": int(crowd)})
        for box, label, score in zip(*(found[key].tolist() for key in ("boxes", "labels", "scores")), strict=True):
            x1, y1, x2, y2 = box
            bbox = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": image, "category_id": label, "bbox": bbox, "score": score})
    content = {
        "images": [{"id": image, "file_name": f"{image}.jpg", "width": 200, "height": 200} for image in given],
        "categories": [{"id": number, "name": name} for number, name in CLASSES.items()],
        "annotations": annotations,
    }
    (folder / "truth.json").write_text(json.dumps(content))
    (folder / "found.json").write_text(json.dumps(results))
    return folder / "truth.json", folder / "found.json"


def collected(given: Given, order: list[int], batch: int = 1, **options: Any) -> Evaluator:
    result = Evaluator(CLASSES, **options)
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        if batch == 1:
            result.update(some[0], *given[some[0]])
        else:
            result.update(some, [given[image][0] for image in some], [given[image][1] for image in some])
    return result


def same(left: Evaluation, right: Evaluation) -> bool:
    """All numbers, by equality."""
    return json.dumps(left.to_dict(), sort_keys=True) == json.dumps(right.to_dict(), sort_keys=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_updates_and_merges_scores_as_files_do(protocol: str, seed: int, tmp_path: Path) -> None:
    given = images(seed)
    expected = evaluate(*files(tmp_path, given), protocol=protocol)
    random = np.random.default_rng(seed)
    order = random.permutation(IDS).tolist()
    assert same(collected(given, order, protocol=protocol).result(), expected)
    assert same(collected(given, order, 3, protocol=protocol).result(), expected)
    cuts = sorted(random.integers(0, len(IDS) + 1, 2).tolist())
    parts = [order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :]]
    ranks = [collected(given, part, 2, protocol=protocol) for part in parts]
    whole = Evaluator(CLASSES, protocol)
    for rank in random.permutation(3).tolist():
        whole.merge(pickle.loads(pickle.dumps(ranks[rank])))
    assert len(whole) == len(IDS)
    assert same(whole.result(), expected)
    truth, found = ({image: pair[side] for image, pair in given.items()} for side in (0, 1))
    assert same(evaluate(truth, found, protocol, classes=CLASSES), expected)
    assert same(evaluate(truth, tmp_path / "found.json", protocol, classes=CLASSES), expected)
    assert same(evaluate(tmp_path / "truth.json", _by_name(found), protocol), expected)


def _by_name(found: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """With names for labels, and one image as Detections."""
    result = {image: one | {"labels": [CLASSES[label] for label in one["labels"]]} for image, one in found.items()}
    last = IDS[-1]
    labels = np.searchsorted(list(CLASSES), found[last]["labels"])
    return result | {last: Detections(found[last]["boxes"], found[last]["scores"], labels, tuple(CLASSES.values()))}


def test_more_may_be_given_after_a_result(tmp_path: Path) -> None:
    given = images(1)
    evaluator = collected(given, IDS[:4])
    first = evaluator.result()
    for image in IDS[4:]:
        evaluator.update(image, *given[image])
    assert same(first, collected(given, IDS[3::-1]).result())
    assert same(evaluator.result(), evaluate(*files(tmp_path, given)))


def test_difficult_objects_and_the_last_pixel() -> None:
    """Worked out by hand: of two objects one is difficult; with inclusive boxes IoU is 40 / 60, else 30 / 50."""
    truth = {"boxes": [[0, 0, 3, 9], [50, 50, 60, 60]], "labels": [0, 0], "difficult": [False, True]}
    found = {"boxes": [[0, 0, 3, 5], [50, 50, 60, 60]], "labels": [0, 0], "scores": [0.9, 0.8]}
    for inclusive, iou in ((False, 5 / 9), (True, 6 / 10)):
        for min_iou, ap in ((iou - 0.001, 1.0), (iou + 0.001, 0.0)):
            evaluator = Evaluator(["cat"], min_iou=min_iou, inclusive=inclusive)
            evaluator.update("a", truth, found)
            result = evaluator.result()
            assert (result.ap["cat"], result.objects["cat"]) == (pytest.approx(ap), 1)


# ---- forms


TRUTH = {"boxes": [[10, 10, 50, 60], [60, 20, 90, 70]], "labels": [1, 2]}
FOUND = {"boxes": [[10, 10, 50, 60], [60, 20, 90, 60]], "labels": [1, 2], "scores": [0.75, 0.5]}


def form(convert: Any, given: dict[str, Any]) -> dict[str, Any]:
    return {key: convert(value) for key, value in given.items()}


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        torch.tensor,
        lambda value: torch.tensor(value, dtype=torch.bfloat16, requires_grad=True),
        lambda value: torch.tensor(value, dtype=torch.float16),
        lambda value: [torch.tensor(one) for one in value],
        lambda value: np.asarray(value, np.float32),
        tuple,
    ],
)
def test_arrays_of_any_library(convert: Any) -> None:
    evaluator = Evaluator({1: "cat", 2: "dog"}, "coco")
    evaluator.update(torch.tensor([7]), form(convert, TRUTH), form(convert, FOUND))
    evaluator.update(torch.tensor([8, 9]), [form(convert, TRUTH), {}], [form(convert, FOUND), None])
    expected = Evaluator({1: "cat", 2: "dog"}, "coco")
    expected.update(["7", "8", "9"], [TRUTH, TRUTH, None], [FOUND, FOUND, {}])
    assert same(evaluator.result(), expected.result())
    assert evaluator.result().counts["images"] == 3
    assert evaluator.tables()[0].image_ids == ("7", "8", "9")


def test_torchvisions_boxes() -> None:
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    evaluator = Evaluator({1: "cat", 2: "dog"})
    boxes = tv_tensors.BoundingBoxes(TRUTH["boxes"], format="XYXY", canvas_size=(100, 100))
    evaluator.update(1, {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": object()}, FOUND)
    assert evaluator.result().mean_ap == pytest.approx(1)
    boxes = tv_tensors.BoundingBoxes(TRUTH["boxes"], format="XYWH", canvas_size=(100, 100))
    with pytest.raises(DataError, match="XYWH; convert"):
        evaluator.update(2, {"boxes": boxes, "labels": [1, 2]}, FOUND)


def test_detections_bring_their_names(caplog: pytest.LogCaptureFixture) -> None:
    boxes = np.array(FOUND["boxes"], np.float64)
    found = Detections(boxes, np.array([0.9, 0.8]), np.array([1, 0]), ("pottedplant", "cat"))
    evaluator = Evaluator(["cat", "potted plant"])
    evaluator.update("a", {"boxes": TRUTH["boxes"], "labels": ["cat", "potted plant"]}, found)
    assert evaluator.result().ap == pytest.approx({"cat": 1, "potted plant": 1})
    only = Evaluator(["cat"])
    only.update("a", {"boxes": TRUTH["boxes"][:1], "labels": ["cat"]}, found)
    assert only.result().counts["detections"] == 1
    with pytest.raises(ResultsError, match="none of their classes"):
        only.update("b", None, Detections(boxes, np.array([0.9, 0.8]), np.array([0, 0]), ("bus",)))
    with pytest.raises(ResultsError, match=r"outside 0\.\.0"):
        only.update("b", None, Detections(boxes, np.array([0.9, 0.8]), np.array([0, 1])))


def test_lists_as_torchmetrics_takes_them() -> None:
    result = evaluate([TRUTH, {}], [FOUND, {}], "coco", classes={1: "cat", 2: "dog"})
    assert result.counts["images"] == 2
    assert result.mean_ap == pytest.approx(1)


# ---- refusals


@pytest.mark.parametrize(
    ("truth", "found", "error", "message"),
    [
        ({"boxes": [[1, 1, 9, 9]]}, {}, DataError, "image 'a', ground truth: 'labels' is missing"),
        ({"labels": [0]}, {}, DataError, "'boxes' is missing; give boxes and labels"),
        ({"boxes": [1, 1, 9, 9], "labels": [0]}, {}, DataError, r"shape \[N, 4\], not int64 of \[4\]"),
        ({"boxes": [[1, 1, 9, 9], [1]], "labels": [0, 0]}, {}, DataError, "'boxes' is no array"),
        ({"boxes": [[1, 1, 9, 9]], "labels": [0, 1]}, {}, DataError, r"labels of shape \[2\]; it must be \[1\]"),
        ({"boxes": [[9, 9, 5, 5]], "labels": [0]}, {}, DataError, r"ends before it begins .* x1, y1, x2, y2"),
        ({"boxes": [[1, 1, 9, 9]], "labels": [2]}, {}, DataError, "unknown label 2. The classes are 0 cat, 1 dog"),
        ({"boxes": [[1, 1, 9, 9]], "labels": [0.5]}, {}, DataError, r"unknown label 0\.5"),
        ({"boxes": [[1, 1, 9, 9]], "labels": ["cow"]}, {}, DataError, "unknown label 'cow'"),
        ({"boxes": [[1, 1, 9, 9]], "labels": [None]}, {}, DataError, "labels must be numbers or names"),
        ({"boxes": [[1, 1, np.nan, 9]], "labels": [0]}, {}, DataError, "a box is not finite"),
        ({"boxes": [[1, 1, 9, 9]], "labels": [0], "area": [np.inf]}, {}, DataError, "an area is not finite"),
        (None, {"boxes": [[1, 1, 9, 9]], "labels": [0]}, ResultsError, "'scores' is missing"),
        (None, {"boxes": [[1, 1, 9, 9]], "labels": [0], "scores": [np.nan]}, ResultsError, "score is not finite"),
        (None, {"boxes": [[1, 1, 9, 9]], "labels": [0], "scores": [[1]]}, ResultsError, r"scores of shape \[1, 1\]"),
        ([None], {}, ValueError, "detections are those of one"),
        ([None, None], [None, None], ValueError, "1 image ids, ground truth of 2"),
    ],
)
def test_mistakes_are_named_and_nothing_is_added(truth: Any, found: Any, error: type[Exception], message: str) -> None:
    evaluator = Evaluator(["cat", "dog"])
    with pytest.raises(error, match=message):
        evaluator.update("a" if not isinstance(truth, list) else ["a"], truth, found)
    with pytest.raises(UserError):
        evaluator.update(["b", "c"], [TRUTH | {"labels": [0, 1]}, {"boxes": [[1, 1, 9, 9]]}], [None, None])
    assert len(evaluator) == 0
    assert repr(evaluator) == "<Evaluator, voc: 0 images, 0 objects, 0 detections>"


def test_refused_settings() -> None:
    for classes, message in (
        ((), "classes are missing"),
        ("cat", "must be a list of names"),
        (["cat", "cat"], "two classes have the name 'cat'"),
        ({"a": "cat"}, "keyed by integers"),
    ):
        with pytest.raises(UserError, match=message):
            Evaluator(classes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"voc, voc07, coco.*not 'pascal'"):
        Evaluator(["cat"], "pascal")
    with pytest.raises(ValueError, match="min_iou"):
        Evaluator(["cat"], min_iou=0)
    with pytest.raises(ResultsError, match="call update first"):
        Evaluator(["cat"]).result()
    with pytest.raises(UserError, match="text or an integer"):
        Evaluator(["cat"]).update(1.5, None, None)


def test_an_image_comes_once() -> None:
    evaluator = Evaluator(["a", "cat", "dog"])
    evaluator.update("1", TRUTH, FOUND)
    for again in (1, "1", np.int32(1)):
        with pytest.raises(ResultsError, match=r"image '1' was given before.*new Evaluator for each epoch"):
            evaluator.update(again, TRUTH, FOUND)
    with pytest.raises(ResultsError, match="image 'x' was given before"):
        evaluator.update(["x", "x"], [None, None], [None, None])


def test_boxes_in_another_layout() -> None:
    evaluator = Evaluator(["a", "cat", "dog"])
    wrong = {**FOUND, "boxes": [[60, 60, 40, 50], [60, 70, 30, 40]]}
    evaluator.update("a", TRUTH, wrong)
    with pytest.raises(ResultsError, match=r"detections: image 'a': box .* look like x, y, width, height"):
        evaluator.result()


def test_nothing_found_and_nothing_there() -> None:
    evaluator = Evaluator(["cat", "dog"])
    evaluator.update("a", {"boxes": [[1, 1, 9, 9]], "labels": [1]}, {"boxes": [], "labels": [], "scores": []})
    assert evaluator.result().ap == {"cat": None, "dog": 0.0}
    empty = Evaluator(["cat"])
    empty.update("a", {"boxes": torch.zeros((0, 4)), "labels": torch.zeros(0, dtype=torch.int64)}, {})
    with pytest.raises(ResultsError, match="no ground truth in 1 images"):
        empty.result()


# ---- several processes


def test_an_image_that_two_processes_have_counts_once() -> None:
    """As samplers repeat images; detections that differ give the same whichever is merged into which."""
    given = images(3)
    expected = collected(given, IDS).result()
    left, right = collected(given, IDS[:5]), collected(given, IDS[3:])
    left.merge(right)
    assert same(left.result(), expected)
    left.merge(left)
    assert len(left) == len(IDS)

    moved = {key: value.copy() for key, value in given[IDS[3]][1].items()}
    moved["scores"] = moved["scores"] - 1e-3
    results = []
    for first in (False, True):
        pair = [collected(given, IDS[:4]), collected({**given, IDS[3]: (given[IDS[3]][0], moved)}, IDS[3:])]
        pair[first].merge(pair[not first])
        results.append(pair[first].result())
    assert same(*results)


def test_merges_that_cannot_be() -> None:
    evaluator = Evaluator(["cat"])
    for other, message in (
        (Evaluator(["dog"]), "the classes differ"),
        (Evaluator(["cat"], "coco"), "the settings differ"),
        (Evaluator(["cat"], inclusive=True), "the settings differ"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluator.merge(other)
    evaluator.update("a", None, None)
    other = Evaluator(["cat"])
    other.update("a", {"boxes": [[1, 1, 9, 9]], "labels": [0]}, None)
    with pytest.raises(ResultsError, match="image 'a' was given twice, with different objects"):
        evaluator.merge(other)


def test_a_state_is_plain_arrays() -> None:
    given = images(4)
    evaluator = collected(given, IDS, protocol="ilsvrc", min_iou=0.4)
    file = io.BytesIO()
    np.savez(file, **evaluator.state())  # type: ignore[arg-type]
    file.seek(0)
    again = Evaluator.from_state(np.load(file, allow_pickle=False))
    assert same(again.result(), evaluator.result())
    assert again.result().min_iou == 0.4
    named = Evaluator(["cat"], "coco", inclusive=True)
    named.merge(Evaluator.from_state(named.state()))  # the same classes and settings


@pytest.mark.parametrize(
    "change",
    [
        {"detection_image": np.array([99])},
        {"detection_label": np.full(3, 5)},
        {"object_box": np.zeros((1, 4))},
        {"protocol": np.array("pascal")},
    ],
)
def test_a_broken_state_is_refused(change: dict[str, np.ndarray]) -> None:
    evaluator = Evaluator(["cat", "dog", "cow"])
    evaluator.update("a", TRUTH, {"boxes": [[1, 1, 9, 9]] * 3, "labels": [0, 1, 2], "scores": [0.1] * 3})
    with pytest.raises(ResultsError, match="no state of an Evaluator"):
        Evaluator.from_state(evaluator.state() | change)
    with pytest.raises(ResultsError, match="no state of an Evaluator"):
        Evaluator.from_state({})


def test_bytes_of_a_detection() -> None:
    evaluator = Evaluator(["cat"])
    for image in range(300):
        boxes = np.tile([1.0, 1, 9, 9], (100, 1))
        evaluator.update(image, None, {"boxes": boxes, "labels": np.zeros(100, np.int64), "scores": np.ones(100)})
    assert 48 * 30_000 <= evaluator.nbytes <= 1.5 * 48 * 30_000
    assert len(pickle.dumps(evaluator)) < 49 * 30_000


def test_warnings_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    evaluator = Evaluator(["cat", "dog", "cow"])
    evaluator.update(["a", "b"], [TRUTH, TRUTH], [{**FOUND, "labels": [0, 0]}, None])
    with caplog.at_level(logging.WARNING, logger="detector"):
        evaluator.result()
    assert caplog.messages == [
        "detections: 2 of 2 detections are of classes without any object in the ground truth (first: cat) and do not "
        "affect the score"
    ]
    assert class_keys(evaluator.tables()[0].classes) == ["cat", "dog", "cow"]
