"""Box regression: geometry, the fit against plain normal equations, and its way through each part of a detector."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray
from torch import nn

from detector.checkpoint import RegionClassifier, load_any_classifier, load_checkpoint, save_checkpoint
from detector.config import ConfigError
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import ClassTable
from detector.model_files import CheckpointError
from detector.network.folding import fold_batch_norm
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig, regression_features
from detector.network.input import InputConvention
from detector.pipeline import Detector
from detector.regions.maps import SharedConfig
from detector.regions.offsets import apply_offsets, fit_regression, offsets_to
from detector.regions.warp import RegionConfig
from detector.settings import CascadeConfig, DetectorConfig, SuppressionConfig
from detector.suppression import class_nms, class_soft_nms, suppress
from detector.training.run import train
from detector.training.windows import InOrder, Windows
from proposals.boxes import iou, mirrored
from proposals.merging import propose
from proposals.settings import ProposalConfig

CLASSES = ClassTable(("square", "disc"), (None, None), (1, 2))
SHAPES = ["square", "disc"]


def random_boxes(count: int, seed: int = 0) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    corner = generator.random((count, 2)) * 80
    return np.concatenate([corner, corner + 4 + generator.random((count, 2)) * 40], axis=1)


# ---- geometry


def test_offsets_by_hand() -> None:
    """R-CNN's equations 6-9: a box of 10 × 20 whose object is a quarter of its width to the right and twice as high."""
    found = offsets_to(np.array([[0, 0, 10, 20]]), np.array([[2.5, -10, 12.5, 30]]))
    np.testing.assert_allclose(found, [[0.25, 0, 0, np.log(2)]])


def test_a_box_goes_where_its_offset_says() -> None:
    boxes, objects = random_boxes(200), random_boxes(200, 1)
    close = (np.abs(offsets_to(boxes, objects)[:, 2:]) < np.log(4)).all(axis=1)
    assert close.sum() > 50
    offsets = np.stack([offsets_to(boxes, objects), np.zeros((200, 4))], axis=1)
    found = apply_offsets(boxes, offsets, 1000, 1000)
    np.testing.assert_allclose(found[close, 0], objects[close], atol=1e-9)
    np.testing.assert_allclose(found[:, 1], boxes, atol=1e-12)


def test_moved_boxes_stay_in_the_image_and_grow_fourfold_at_most() -> None:
    boxes = np.array([[10.0, 10, 30, 30], [0, 0, 20, 10], [50, 50, 60, 60]])
    offsets = np.zeros((3, 1, 4))
    offsets[0, 0, 2:] = 9
    offsets[1, 0, 0] = -0.75
    offsets[2, 0, 1] = 40
    found = apply_offsets(boxes, offsets, 100, 70)[:, 0]
    assert found.tolist() == [[0, 0, 60, 60], [0, 0, 5, 10], [50, 50, 60, 60]]  # the last would have left it


# ---- the fit


def test_the_fit_is_ridge_regression_of_each_class() -> None:
    """Against the normal equations, [F, F], on features scaled to a mean norm of 20; the intercept is free."""
    generator = np.random.default_rng(0)
    features, offsets = generator.random((60, 25)) + 0.5, generator.standard_normal((60, 4))
    labels = np.repeat([0, 2], [35, 25])
    layer = fit_regression(torch.from_numpy(features).float(), offsets, labels, 3, 7.0)
    scaled = features * 20 / np.linalg.norm(features, axis=1).mean()
    with torch.inference_mode():
        found = layer(torch.from_numpy(features).float()).numpy().reshape(60, 3, 4)
    for label in (0, 2):
        x, y = scaled[labels == label], offsets[labels == label]
        centred = x - x.mean(axis=0)
        weight = np.linalg.solve(centred.T @ centred + 7 * np.eye(25), centred.T @ (y - y.mean(axis=0)))
        expected = (scaled - x.mean(axis=0)) @ weight + y.mean(axis=0)
        np.testing.assert_allclose(found[:, label], expected, atol=1e-4)
    assert not found[:, 1].any()  # of a class without windows nothing is known


def test_the_larger_the_ridge_the_less_is_apply_offsets() -> None:
    generator = np.random.default_rng(0)
    features, labels = torch.from_numpy(generator.random((40, 9))).float(), np.zeros(40, np.int64)
    offsets = generator.standard_normal((40, 4))
    norms = [
        float(fit_regression(features, offsets, labels, 1, ridge).weight.detach().norm()) for ridge in (1.0, 1e3, 1e9)
    ]
    assert norms[0] > norms[1] > norms[2]
    assert norms[2] == pytest.approx(0, abs=1e-4)


# ---- suppression of boxes that each class has elsewhere


@pytest.mark.parametrize("soft_sigma", [0.0, 0.5])
def test_each_class_is_suppressed_on_its_own_boxes(soft_sigma: float) -> None:
    boxes = np.stack([random_boxes(40, seed) for seed in range(3)], axis=1)  # [N, K, 4]
    scores = np.random.default_rng(3).random((40, 4)).round(1)
    config = SuppressionConfig(min_score=0.2, max_iou=0.3, limit=1000, soft_sigma=soft_sigma)
    found = suppress(boxes, scores, config)
    rows = []
    for label in range(3):
        alone = np.zeros_like(scores)
        alone[:, label + 1] = scores[:, label + 1]
        one = suppress(np.broadcast_to(boxes[:, [label]], boxes.shape), alone, config)
        assert 3 < len(one) <= 40
        rows += [(label, score, *box) for score, box in zip(one.scores.tolist(), one.boxes.tolist(), strict=True)]
    assert sorted(rows) == sorted(
        (label, score, *box)
        for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    )


def test_no_boxes() -> None:
    nothing = np.zeros((0, 2, 4)), np.zeros((0, 2))
    assert [len(part) for part in class_nms(*nothing, 0.1, 0.3)] == [0, 0]
    assert [len(part) for part in class_soft_nms(*nothing, 0.1, 0.5)] == [0, 0, 0]


# ---- the network, the file


def regressing(seed: int = 0, *, norm: str = "none", shared: SharedConfig | None = None) -> RegionClassifier:
    torch.manual_seed(seed)
    config = GoogLeNetConfig(classes=3, width=0.25, norm=norm, initialisation="xavier")
    network = GoogLeNet(config).eval()
    layer = nn.Linear(network.fc.in_features * (9 if shared else 1), 8)  # a map of 7 × 7, or of 2 × 2
    network.set_regression(layer)
    with torch.no_grad():
        network.fc.weight.mul_(20)
        layer.weight.mul_(3)
    return RegionClassifier(
        network, InputConvention(std=(60.0, 60.0, 60.0)), RegionConfig(64, 4), CLASSES, shared=shared
    )


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    blocks = np.random.default_rng(0).integers(0, 256, (9, 12, 3))
    return blocks.repeat(10, axis=0).repeat(10, axis=1).astype(np.uint8)


BOXES = np.array([[0, 0, 30, 30], [10, 5, 60, 45], [60, 0, 120, 90], [0, 0, 120, 90], [100, 70, 120, 90]], np.float32)


def test_features_that_know_where() -> None:
    """3 × 3 places of a 7 × 7 map: rows 0-2, 2-4 and 4-6 of it."""
    features = torch.randn(2, 5, 7, 7)
    found = regression_features(features).reshape(2, 5, 3, 3)
    for row in range(3):
        for column in range(3):
            expected = features[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].mean(dim=(2, 3))
            torch.testing.assert_close(found[:, :, row, column], expected)
    assert regression_features(torch.randn(2, 5, 2, 2)).shape == (2, 5)


def test_forward_gives_logits_and_heads_the_offsets_too() -> None:
    network = regressing().network
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        features = network.trunk(x)
        assert network.regression is not None
        logits, offsets = network.heads(features)
        torch.testing.assert_close(network(x), network.fc(features.mean(dim=(2, 3))))
        torch.testing.assert_close(logits, network(x))
        assert offsets is not None
        torch.testing.assert_close(offsets.flatten(1), network.regression(regression_features(features)))
        assert offsets.shape == (2, 2, 4)
        network.set_regression(None)
        assert network.heads(features).offsets is None
    assert network.config.regression_cells == 0


@pytest.mark.parametrize("initialisation", ["gaussian2014", "xavier", "torchvision"])
def test_a_layer_that_was_not_fitted_moves_nothing(initialisation: str) -> None:
    network = GoogLeNet(
        GoogLeNetConfig(classes=3, width=0.25, initialisation=initialisation, regression_cells=1)
    ).eval()
    _, offsets = network.heads(network.trunk(torch.randn(2, 3, 64, 64)))
    assert offsets is not None
    assert not offsets.any()


def test_folding_keeps_it() -> None:
    network = regressing(norm="batch").network
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        folded = fold_batch_norm(network)
        for found, expected in zip(folded.heads(folded.trunk(x)), network.heads(network.trunk(x)), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_file_keeps_it(tmp_path: Path) -> None:
    one = regressing()
    save_checkpoint(tmp_path / "with.safetensors", one)
    loaded = load_checkpoint(tmp_path / "with.safetensors").network
    assert loaded.regression is not None
    assert one.network.regression is not None
    assert torch.equal(loaded.regression.weight, one.network.regression.weight)
    assert torch.equal(loaded.regression.bias, one.network.regression.bias)
    as_images = load_any_classifier(tmp_path / "with.safetensors")  # whole images have a class, no place
    assert as_images.network(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    one.network.replace_classifier(5)
    assert one.network(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


@pytest.mark.skipif(not importlib.util.find_spec("onnxruntime"), reason="the optional extra onnx is not installed")
def test_onnxruntime_gives_the_same_boxes(image: NDArray[np.uint8]) -> None:
    one = regressing()
    found = [
        Detector([one], DetectorConfig(regression=True, precision="float32", backend=backend)).score(image, BOXES)
        for backend in ("torch", "onnxruntime")
    ]
    np.testing.assert_allclose(found[0].class_boxes, found[1].class_boxes, atol=1e-2)


# ---- the detector


@pytest.mark.parametrize("shared", [None, SharedConfig(pyramid=[96, 192], region=64, grid=14)], ids=["warp", "shared"])
def test_detections_are_where_the_members_mean_places_them(
    image: NDArray[np.uint8], shared: SharedConfig | None
) -> None:
    members = [regressing(seed, shared=shared) for seed in (0, 1)]
    config = DetectorConfig(
        regression=True,
        precision="float32",
        backend="torch",
        batch=2,
        suppression=SuppressionConfig(min_score=0.0, max_iou=1.0),
    )
    alone = [Detector([one], config).score(image, BOXES).scores for one in members]
    assert alone[0].offsets is not None
    assert alone[1].offsets is not None
    assert np.abs(alone[0].offsets).max() > 0.05
    run = Detector(members, config).score(image, BOXES)
    mean = (alone[0].probabilities + alone[1].probabilities) / 2
    np.testing.assert_allclose(run.scores.probabilities, mean, atol=1e-5)
    expected = apply_offsets(BOXES, (alone[0].offsets + alone[1].offsets) / 2, 120, 90)
    np.testing.assert_allclose(run.class_boxes, expected, atol=1e-2)
    np.testing.assert_allclose(
        np.sort(run.detections().boxes, axis=0), np.sort(expected.reshape(-1, 4), axis=0), atol=1e-2
    )
    assert np.array_equal(run.boxes, BOXES)
    plain = Detector(members, replace(config, regression=False)).score(image, BOXES)
    np.testing.assert_allclose(plain.scores.probabilities, run.scores.probabilities, atol=1e-5)
    assert np.array_equal(plain.class_boxes, np.stack([BOXES, BOXES], axis=1))


def test_with_a_cascade_only_members_that_looked_have_a_say(image: NDArray[np.uint8]) -> None:
    members = [regressing(seed) for seed in (0, 1)]
    config = DetectorConfig(regression=True, precision="float32", backend="torch", cascade=CascadeConfig(0.9999, 2))
    first, second = (
        Detector([one], replace(config, cascade=CascadeConfig())).score(image, BOXES).scores for one in members
    )
    found = Detector(members, config).score(image, BOXES).scores
    passing = np.argsort(first.probabilities[:, 0], kind="stable")[:2]
    for name in ("probabilities", "offsets"):
        expected, other = getattr(first, name).copy(), getattr(second, name)
        expected[passing] = (expected[passing] + other[passing]) / 2
        np.testing.assert_allclose(getattr(found, name), expected, atol=1e-5)


@pytest.mark.parametrize("shared", [None, SharedConfig(pyramid=[96, 192], region=64, grid=14)], ids=["warp", "shared"])
def test_mirrored_regions_have_a_say(image: NDArray[np.uint8], shared: SharedConfig | None) -> None:
    """A mirrored photograph has the mirrored detections."""
    config = DetectorConfig(regression=True, mirror=True, precision="float32", backend="torch")
    detector = Detector([regressing(shared=shared)], config)
    here = detector.score(image, BOXES).class_boxes
    there = detector.score(np.ascontiguousarray(image[:, ::-1]), mirrored(BOXES, 120)).class_boxes
    for label in range(2):
        np.testing.assert_allclose(mirrored(there[:, label], 120), here[:, label], atol=0.5)  # warps round differently


def test_a_member_without_is_named() -> None:
    without = regressing(1)
    without.network.set_regression(None)
    with pytest.raises(ValueError, match=r"model 2 of 2 .*train_classifier"):
        Detector([regressing(), without], DetectorConfig(regression=True, backend="torch"))
    Detector([regressing(), without], DetectorConfig(backend="torch"))


# ---- training


@pytest.fixture(scope="module")
def settings(shapes: Path, toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = {"kind": "voc", "root": str(shapes), "classes": SHAPES}
    return {
        "name": "toy",
        "precision": "float32",
        "init": str(toy_checkpoint),
        "train": data | {"split": "train"},
        "val": data | {"split": "val"},
        "proposals": {"width": 0, "min_width": 8},
        "regions": {"size": 64, "context": 4},
        "linear_batches": 2,
        "epochs": 1,
        "batches_per_epoch": 1,
        "batch": 8,
        "foreground": 3,
        "val_batches": 1,
        "workers": 0,
        "cache": str(tmp_path_factory.mktemp("cache")),
        "regression_windows": 50,
    }


SHARED = {"mode": "shared", "images": 2, "shared": {"pyramid": [96, 192], "region": 64}}
Run = Callable[..., Path]


@pytest.fixture
def run(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def carry_out(*, resume: bool = False, **changes: Any) -> Path:
        (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings | changes))
        monkeypatch.chdir(tmp_path)
        (folder,) = train("toy.yaml", [], device="cpu", resume=resume)
        return folder.resolve()

    return carry_out


@pytest.mark.parametrize("mode", ["warp", "shared"])
def test_training_ends_with_the_fit(run: Run, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    shared = SHARED if mode == "shared" else {}
    folder = run(**shared)
    best = folder / "best.safetensors"
    assert re.search(r"best.safetensors: .*IoU.* 0\.\d", caplog.text)
    caplog.clear()
    layer = load_checkpoint(best).network.regression
    assert layer is not None
    assert layer.weight.shape[0] == 8
    assert load_checkpoint(folder / "last.safetensors").network.regression is None
    before = best.read_bytes()
    run(resume=True, **shared)  # what is there stays
    assert best.read_bytes() == before
    assert "IoU" not in caplog.text


def test_it_covers_objects_better(run: Run, shapes: Path) -> None:
    """The windows it was fitted on, as the detector scores and moves them."""
    detector = Detector(
        [load_checkpoint(run(regression_ridge=0.1, **SHARED) / "best.safetensors")],
        DetectorConfig(regression=True, precision="float32"),
    )
    before, after = [], []
    for record in open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", SHAPES)).records:
        boxes = propose(record.read(), ProposalConfig(width=0, min_width=8)).boxes
        placed = detector.score(record.read(), boxes).class_boxes
        overlaps = iou(boxes.astype(np.float64), record.boxes)
        for row, which in zip(*np.nonzero(overlaps >= 0.6), strict=True):
            before.append(overlaps[row, which])
            own = placed[row, record.labels[which]][None]
            after.append(iou(own, record.boxes[which : which + 1])[0, 0])
    assert len(before) > 10
    assert np.mean(after) > np.mean(before) + 0.01


def test_a_trained_classifier_gets_a_layer_and_stays_itself(run: Run, toy_checkpoint: Path) -> None:
    folder = run(linear_batches=0, train_from="none")
    found, init = (load_checkpoint(path).network for path in (folder / "best.safetensors", toy_checkpoint))
    assert found.regression is not None
    for name, tensor in init.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"regression_windows": -1}, ConfigError, "regression_windows must be at least 0, not -1"),
        ({"regression_ridge": -0.5}, ConfigError, "regression_ridge must be at least 0, not -0.5"),
        (
            {"linear_batches": 0, "regions": {"size": 96}},
            CheckpointError,
            "other regions or another mode than this run",
        ),
        ({"linear_batches": 0, "init": "nowhere"}, CheckpointError, "no checkpoint nowhere"),
    ],
)
def test_refusals(run: Run, changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        run(**changes)


def test_windows_in_order() -> None:
    image = np.array([4, 1, 4, 7, 1, 1], np.int32)
    windows = Windows(
        image, np.arange(24, dtype=np.float32).reshape(6, 4), image.astype(np.int16), np.ones(6, np.float32)
    )
    order = InOrder(windows)
    assert len(order) == 3
    for number, (which, rows) in enumerate([(1, [1, 4, 5]), (4, [0, 2]), (7, [3])]):
        some, turned = order.draw(number)
        assert some.image.tolist() == [which] * len(rows)
        assert np.array_equal(some.boxes, windows.boxes[rows])
        assert not turned.any()
