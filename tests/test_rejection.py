"""Early rejection: the layer, its file, its fit, and what a shared member does with it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from narrow import picture, shared_classifier
from numpy.typing import NDArray
from torchvision.ops import roi_align

from detector import Detector, DetectorConfig
from detector.checkpoint import RegionClassifier, load_checkpoint, save_checkpoint
from detector.config import ConfigError
from detector.members import SharedMember
from detector.model_files import CheckpointError
from detector.regions.maps import FIRST_REGION_LAYER, ImageMaps, SharedConfig, map_coordinates
from detector.regions.rejection import RejectionLayer, RejectionLayerConfig
from detector.regions.warp import RegionConfig, context_windows
from detector.rejection import RejectionModel, fingerprint, load_rejection, save_rejection
from detector.settings import RejectionConfig
from detector.training.rejection import Example, divergence, fit_rejection
from detector.views import View

CPU = torch.device("cpu")
REGIONS, SHARED = RegionConfig(64, 4), SharedConfig(pyramid=[96, 192], region=64, grid=6)
BOXES = np.array([[0, 0, 30, 30], [10, 5, 60, 45], [60, 0, 120, 90], [0, 0, 120, 90], [100, 70, 120, 90]], np.float32)
SMALL = RejectionLayerConfig(channels=8, grid=3, hidden=4)


@pytest.fixture(scope="module")
def classifier() -> RegionClassifier:
    return shared_classifier(SHARED)


@pytest.fixture
def model(classifier: RegionClassifier) -> RejectionModel:
    torch.manual_seed(1)
    depth = classifier.network.trunk_slice(None, FIRST_REGION_LAYER)(torch.zeros(1, 3, 64, 64)).shape[1]
    layer = RejectionLayer(depth, SMALL).eval()
    layer.project.weight.data.mul_(5)
    return RejectionModel(layer, 0.5, fingerprint(classifier.network), {"data": "none"})


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return picture()


def test_the_layer_is_a_projection_cut_by_torchvision_and_two_linear_layers() -> None:
    torch.manual_seed(0)
    layer = RejectionLayer(6, RejectionLayerConfig(channels=4, grid=3, hidden=5))
    one_level = replace(SHARED, pyramid=[96])
    features, scale = torch.randn(1, 6, 5, 7), (1.1, 0.9)
    found = layer(lambda _: (features, scale), BOXES, (90, 120), REGIONS, one_level)
    windows = map_coordinates(context_windows(BOXES, REGIONS), scale)
    rois = torch.from_numpy(np.concatenate([np.zeros((len(BOXES), 1), np.float32), windows + 0.5], axis=1))
    cells = roi_align(F.relu(layer.project(features)), rois, 3, sampling_ratio=1, aligned=True)
    expected = layer.out(F.relu(layer.hidden(cells.flatten(1))))[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["channels", "grid", "hidden"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"layer.{name}"):
        RejectionLayerConfig(**{name: 0})


def test_the_file_keeps_the_layer(model: RejectionModel, classifier: RegionClassifier, tmp_path: Path) -> None:
    path = tmp_path / "layer.safetensors"
    save_rejection(path, model)
    found = load_rejection(path, classifier, "toy")
    assert (found.threshold, found.provenance, found.layer.config) == (0.5, {"data": "none"}, SMALL)
    assert not found.layer.training
    for name, tensor in model.layer.state_dict().items():
        torch.testing.assert_close(found.layer.state_dict()[name], tensor.half().float(), atol=0, rtol=0)


def test_the_fingerprint_is_that_of_the_weights(classifier: RegionClassifier, tmp_path: Path) -> None:
    own = fingerprint(classifier.network)
    for half in (False, True):
        save_checkpoint(tmp_path / "copy.safetensors", classifier, half=half)
        assert fingerprint(load_checkpoint(tmp_path / "copy.safetensors").network) == own
    other = copy.deepcopy(classifier.network)
    other.set_regression(torch.nn.Linear(other.fc.in_features, 8))
    assert fingerprint(other) == own
    with torch.no_grad():
        other.fc.bias[0] += 1
    assert fingerprint(other) != own


def test_a_layer_of_other_weights_is_refused(
    model: RejectionModel, classifier: RegionClassifier, tmp_path: Path
) -> None:
    path = tmp_path / "layer.safetensors"
    save_rejection(path, replace(model, fingerprint="0" * 64))
    with pytest.raises(CheckpointError, match=r"layer\.safetensors.*other weights than toy.*fit.cascade"):
        load_rejection(path, classifier, "toy")
    with pytest.raises(CheckpointError, match="no rejection layer nothing"):
        load_rejection(Path("nothing"), classifier, "toy")
    save_checkpoint(path, classifier)
    with pytest.raises(CheckpointError, match="holds no rejection layer"):
        load_rejection(path, classifier, "toy")


@pytest.mark.parametrize("rejected", [0, 2, 5])
def test_a_member_scores_what_the_layer_passes_and_calls_the_rest_background(
    rejected: int, model: RejectionModel, classifier: RegionClassifier, image: NDArray[np.uint8]
) -> None:
    config = DetectorConfig(batch=1, precision="float32")
    plain = SharedMember(classifier, config, CPU)
    (maps,) = plain.network.trunk([View(image, BOXES)])
    with torch.inference_mode():
        logits = model.layer(maps.levels.__getitem__, BOXES, maps.size, REGIONS, SHARED)
    objects = logits.sigmoid().numpy()
    threshold = float(np.sort([*objects, 0.9999])[rejected])
    passing = objects >= threshold
    assert passing.sum() == len(BOXES) - rejected
    member = SharedMember(classifier, config, CPU, replace(model, threshold=threshold))
    two = [View(image, BOXES), View(image, BOXES[:2])]
    found, expected = member.score(two), plain.score(two)
    passing = np.concatenate([passing, passing[:2]])
    assert [view.counts["regions_cut"] - len(view) for view in two] == [passing[:5].sum(), passing[5:].sum()]
    np.testing.assert_allclose(found.probabilities[passing], expected.probabilities[passing], atol=1e-6)
    np.testing.assert_array_equal(found.probabilities[~passing], np.tile([1, 0, 0], ((~passing).sum(), 1)))


def synthetic(seed: int, count: int = 60) -> Example:
    """The object probability of a region is high where its window covers bright cells of the first channel."""
    generator = np.random.default_rng(seed)
    features = torch.zeros(1, 4, 6, 8)
    features[0, 0, generator.integers(6), generator.integers(8)] = 40
    features[0, 1:] = torch.from_numpy(generator.normal(size=(3, 6, 8)).astype(np.float32))
    corner = generator.random((count, 2)) * (80, 50)
    boxes = np.concatenate([corner, corner + 20], axis=1).astype(np.float32)
    maps = ImageMaps((90, 120), {0: (features, (1.0, 1.0))})
    mean = RejectionLayer(4, RejectionLayerConfig(1, 4, 1))
    with torch.no_grad():
        mean.project.weight.zero_()
        mean.project.weight[0, 0] = 1
        mean.project.bias.zero_()
        mean.hidden.weight.fill_(1 / 16)
        mean.hidden.bias.zero_()
        mean.out.weight.fill_(4.0)
        mean.out.bias.fill_(-4.0)
        one = replace(SHARED, pyramid=[96])
        objects = mean(maps.levels.__getitem__, boxes, maps.size, REGIONS, one).sigmoid().numpy()
    return Example(ImageMaps(maps.size, {0: (features.half(), (1.0, 1.0))}), boxes, objects)


def test_the_fit_learns_the_networks_probabilities() -> None:
    one_level = replace(SHARED, pyramid=[96])
    examples, held_out = [synthetic(seed) for seed in range(12)], [synthetic(seed) for seed in range(100, 104)]

    def fitted(epochs: int) -> RejectionLayer:
        return fit_rejection(examples, SMALL, REGIONS, one_level, epochs=epochs, learning_rate=0.02)

    state = torch.random.get_rng_state()
    layer, again, begun = fitted(25), fitted(25), fitted(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, tensor in layer.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=0, rtol=0)
    before, after = (divergence(one, held_out, REGIONS, one_level) for one in (begun, layer))
    assert 0 <= after < 0.05 < before


@pytest.fixture
def saved(classifier: RegionClassifier, model: RejectionModel, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "toy.safetensors", classifier)
    save_rejection(tmp_path / "toy.rejection.safetensors", model)
    return tmp_path / "toy.safetensors"


def reach(model: Path, *overrides: str) -> int:
    """Number of regions that a detector cuts in an image."""
    settings = [f"models=[{model}]", "precision=float32", "proposals.multibox.weights=''", *overrides]
    detector = Detector.load("paper", overrides=settings)
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    return detector.score(noise, BOXES).counts["regions_cut"]


def test_auto_takes_the_layer_beside_the_model(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    layer = saved.with_name("toy.rejection.safetensors")
    assert reach(saved, "rejection.threshold=0.999") == 5  # none unless asked for
    for weights in ("auto", str(layer)):
        assert reach(saved, f"rejection.weights={weights}", "rejection.threshold=0.999") == 0
        assert reach(saved, f"rejection.weights={weights}", "rejection.threshold=0") == 5
    assert reach(saved, "rejection.weights=auto", "rejection.threshold=0.999", "mirror=true") == 10
    both = f"models=[{saved},{saved}]"
    assert reach(saved, both, "rejection.weights=auto", "rejection.threshold=0.999", "cascade.threshold=0") == 10
    assert not caplog.messages
    layer.unlink()
    assert reach(saved, "rejection.weights=auto", "rejection.threshold=0.999") == 5


def test_auto_leaves_out_the_layer_of_other_weights(
    saved: Path, classifier: RegionClassifier, caplog: pytest.LogCaptureFixture
) -> None:
    other = copy.deepcopy(classifier)
    with torch.no_grad():
        other.network.fc.bias[0] += 1
    save_checkpoint(saved, other)
    assert reach(saved, "rejection.weights=auto", "rejection.threshold=0.999") == 5
    assert "toy.rejection.safetensors" in caplog.text
    with pytest.raises(CheckpointError, match="other weights"):
        reach(saved, f"rejection.weights={saved.with_name('toy.rejection.safetensors')}")


def test_a_layer_is_refused_where_a_rejected_region_would_be_scored_by_others(
    saved: Path, toy_checkpoint: Path
) -> None:
    layer = f"rejection.weights={saved.with_name('toy.rejection.safetensors')}"
    for override in ("mirror=true", f"models=[{saved},{saved}]"):
        with pytest.raises(ConfigError, match=r"rejection\.weights"):
            reach(saved, layer, override)
    with pytest.raises(CheckpointError, match="warps its regions"):
        reach(toy_checkpoint, layer)


def test_no_threshold_outside_its_range() -> None:
    for threshold in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"rejection\.threshold"):
            RejectionConfig(threshold=threshold)
