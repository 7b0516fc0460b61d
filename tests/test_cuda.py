"""What a CUDA device computes, held against the CPU; every network here is a toy, so that the file takes a minute."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import load_file
from test_detection_ap import independent_ap
from torch import Tensor, nn

from detector import Detector, DetectorConfig
from detector.checkpoint import ImageClassifier, RegionClassifier, load_checkpoint
from detector.classification.ensemble import classify
from detector.data.ground_truth import ClassTable
from detector.data.image import Image, ImageError, read_image
from detector.device import autocast, choose_device, choose_precision, upload
from detector.multibox import MultiBoxModel
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig, training_loss
from detector.network.input import InputConvention
from detector.network.lrn import local_response_norm
from detector.pipeline import ScoredImage
from detector.regions.device_warp import warp_on_device
from detector.regions.maps import SharedConfig, roi_align
from detector.regions.warp import RegionConfig, warp
from detector.settings import SuppressionConfig
from detector.training.record import read_metrics
from detector.training.run import train
from detector.training.scaling import ScaledSteps
from proposals.multibox.head import MultiBox, MultiBoxConfig, MultiBoxHead
from proposals.settings import ProposalConfig

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CLASSES = ClassTable(("square", "disc"), (None, None), (1, 2))
CONVENTION = InputConvention((120.0, 115.0, 100.0), (60.0, 61.0, 62.0))
BOXES = np.array([[0, 0, 30, 30], [10, 5, 60, 45], [60, 0, 120, 90], [0, 0, 120, 90], [100, 70, 120, 90]], np.float32)
SHARED = SharedConfig(pyramid=[96, 192], region=64, grid=14)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions with all bits of float32: by default cuDNN takes TF32's 10 bits of mantissa."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def image() -> Image:
    blocks = np.random.default_rng(0).integers(0, 256, (9, 12, 3))
    return blocks.repeat(10, axis=0).repeat(10, axis=1).astype(np.uint8)


def pictures(count: int, side: int = 96) -> Tensor:
    """Of coarse blocks: to a network, all noise of single pixels looks alike."""
    blocks = torch.randn(count, 3, side // 16, side // 16, generator=torch.Generator().manual_seed(1))
    return blocks.repeat_interleave(16, 2).repeat_interleave(16, 3)


def network(**settings: Any) -> GoogLeNet:
    """A narrow GoogLeNet whose logits over images have mean 0 and deviation 1."""
    torch.manual_seed(0)
    result = GoogLeNet(GoogLeNetConfig(**{"classes": 3, "width": 0.25, "initialisation": "xavier"} | settings)).train()
    for layer in result.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        result(pictures(16))
        logits = result.eval()(pictures(16))
        result.fc.weight.div_(logits.std(dim=0)[:, None])
        result.fc.bias.copy_(-logits.mean(dim=0) / logits.std(dim=0))
    return result


def member(shared: SharedConfig | None = None, *, regression: bool = False, **settings: Any) -> RegionClassifier:
    narrow = network(**settings)
    if regression:
        narrow.regression = nn.Linear(narrow.fc.in_features, 4 * len(CLASSES))
        nn.init.normal_(narrow.regression.weight, std=0.2)
    return RegionClassifier(narrow, CONVENTION, RegionConfig(64, 4), CLASSES, shared=shared)


def test_auto_is_the_gpu() -> None:
    assert choose_device("auto").type == "cuda"
    assert choose_device("cuda:0").index == 0
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize("settings", [{}, {"norm": "batch"}, {"norm": "none"}, {"stem": "separable"}])
def test_a_network_forward(settings: dict[str, Any]) -> None:
    on_cpu = network(**settings)
    on_gpu = copy.deepcopy(on_cpu).to(GPU)
    with torch.inference_mode():
        expected, found = on_cpu(pictures(4)), on_gpu(pictures(4).to(GPU)).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert expected.std(dim=0).max() > 0.1  # a hundred times the tolerance


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_local_response_norm_and_its_gradient(layout: torch.memory_format) -> None:
    values = 50 * torch.randn(2, 16, 9, 7, generator=torch.Generator().manual_seed(0))
    results = []
    for device in (CPU, GPU):
        x = values.to(device).clone(memory_format=layout).requires_grad_()
        y = local_response_norm(x)
        (y * y).sum().backward()
        assert x.grad is not None
        results.append((y.detach().cpu(), x.grad.cpu()))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


def test_regions_cut_out_of_a_map() -> None:
    features = torch.randn(1, 24, 8, 11, generator=torch.Generator().manual_seed(1))
    generator = np.random.default_rng(0)
    corner = generator.random((50, 2)) * (12, 9) - 2
    windows = np.concatenate([corner, corner + 0.2 + generator.random((50, 2)) * 9], axis=1).astype(np.float32)
    found = roi_align(features.to(GPU), windows, 7).cpu()
    torch.testing.assert_close(found, roi_align(features, windows, 7), rtol=1e-4, atol=1e-4)


def test_regions_warped_there(image: Image) -> None:
    found = warp_on_device(upload(image, GPU).float(), BOXES, RegionConfig(64, 4), CONVENTION.mean).cpu().numpy()
    expected = warp(image, BOXES, RegionConfig(64, 4), CONVENTION.mean)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


MEMBERS = {
    "warped": member,
    "warped, batch normalisation": lambda: member(norm="batch"),
    "warped, with regression": lambda: member(regression=True),
    "shared": lambda: member(SHARED, norm="none"),
}


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("kind", list(MEMBERS))
def test_a_member(kind: str, mirror: bool, image: Image) -> None:
    one = MEMBERS[kind]()
    config = DetectorConfig(mirror=mirror, regression="regression" in kind, batch=2, precision="float32")
    expected, found = (Detector([one], config, device).score(image, BOXES) for device in (CPU, GPU))
    np.testing.assert_allclose(found.scores.probabilities, expected.scores.probabilities, atol=1e-3)
    np.testing.assert_allclose(found.class_boxes, expected.class_boxes, atol=0.05)
    assert expected.scores.probabilities.std(axis=0).max() > 0.02  # twenty times the tolerance


def test_bfloat16_is_near_float32(image: Image) -> None:
    """What precision=auto takes on a device of compute capability 8 or more."""
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU multiplies no bfloat16")
    assert choose_precision("auto", GPU) == torch.bfloat16
    for kind in ("warped", "shared"):
        one = MEMBERS[kind]()
        expected = Detector([one], DetectorConfig(precision="float32"), CPU).score(image, BOXES)
        found = Detector([one], DetectorConfig(precision="auto"), GPU).score(image, BOXES)
        np.testing.assert_allclose(found, expected, atol=0.25)  # what the classifier tells apart is 1 % of its features


def test_a_detector_from_proposals_to_detections(shapes: Path, toy_checkpoint: Path) -> None:
    photo = read_image(shapes / "JPEGImages" / "val0.png")
    config = DetectorConfig(
        models=[str(toy_checkpoint)],
        proposals=ProposalConfig(width=0, min_width=8, max_boxes=40),
        suppression=SuppressionConfig(min_score=0.0),
        precision="float32",
    )
    expected, found = (Detector.load(config, device=name).score(photo) for name in ("cpu", "cuda"))
    assert np.array_equal(found.boxes, expected.boxes)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    assert len(found.detections()) == pytest.approx(len(expected.detections()), abs=2)  # near-ties may fall either way


def test_images_scored_together(shapes: Path) -> None:
    """More than fill a group, and one that cannot be read."""
    proposals = ProposalConfig(width=0, min_width=8, max_boxes=40)
    config = DetectorConfig(proposals=proposals, precision="float32")
    detector = Detector([MEMBERS["shared"](), MEMBERS["warped"]()], config, GPU)
    paths = [shapes / "JPEGImages" / f"val{number % 3}.png" for number in range(11)]
    paths.insert(4, shapes / "none.png")
    results = list(detector.score_many(paths))
    assert [path for path, _ in results] == paths
    for path, scored in results:
        if path.exists():
            assert isinstance(scored, ScoredImage)
            np.testing.assert_allclose(
                scored.scores.probabilities, detector.score(path).scores.probabilities, atol=1e-3
            )
    assert isinstance(results[4][1], ImageError)


def test_too_little_memory_halves_the_batch(image: Image) -> None:
    """With the error that CUDA itself raises."""
    sizes = []

    class Crowded(nn.Module):
        config = GoogLeNetConfig(classes=3)
        regression = None

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            if len(x) > 2:
                torch.empty(1 << 44, device=x.device)
            logits: Tensor = self.linear(x.mean(dim=(2, 3)))
            return logits

    one = RegionClassifier(Crowded(), CONVENTION, RegionConfig(64, 4), CLASSES)  # type: ignore[arg-type]
    detector = Detector([one], DetectorConfig(batch=4, backend="torch", precision="float32"), GPU)
    scores = detector.score(image, np.tile(BOXES, (2, 1)))
    assert np.isfinite(scores).all()
    assert sizes[:3] == [4, 2, 2]
    assert max(sizes[3:]) == 2  # it has learned


def test_whole_images() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    expected = classify(ImageClassifier(network(), CONVENTION, 64), photo, 10)
    found = classify(ImageClassifier(network().to(GPU), CONVENTION, 64), photo, 10, device=GPU)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_multibox(image: Image) -> None:
    narrow = network()
    corners = torch.rand(30, 2, generator=torch.Generator().manual_seed(0)) / 2
    head = MultiBoxHead(
        narrow.fc.in_features, torch.cat([corners, corners + 0.3], dim=1), MultiBoxConfig(30, hidden=24)
    )
    nn.init.normal_(head.locations.weight, std=2)
    model = MultiBoxModel(MultiBox(narrow.trunk, head).eval(), narrow.config, CONVENTION, 96)
    ((boxes, scores),) = model.propose([image], limit=30)
    on_gpu = replace(model, network=copy.deepcopy(model.network).to(GPU))
    ((found, confidences),) = on_gpu.propose([image], limit=30, device=GPU)
    order, other = (np.lexsort(np.round(rows).T) for rows in (boxes, found))
    np.testing.assert_allclose(found[other], boxes[order], atol=0.6)
    np.testing.assert_allclose(np.sort(confidences), np.sort(scores), atol=1e-3)


@pytest.mark.parametrize("settings", [{}, {"norm": "batch"}])
def test_a_training_step(settings: dict[str, Any]) -> None:
    """Forward, auxiliary heads, backward and SGD, without dropout, which draws other numbers on each device."""
    labels = torch.tensor([0, 1, 2, 1])
    after: list[dict[str, Tensor]] = []
    losses = []
    start = network(auxiliary_heads=2, dropout=0.0, auxiliary_dropout=0.0, **settings)
    for device in (CPU, GPU):
        learner = copy.deepcopy(start).to(device).train()
        optimiser = torch.optim.SGD(learner.parameters(), lr=0.01, momentum=0.9)
        loss = training_loss(learner.forward_with_auxiliary(pictures(4).to(device)), labels.to(device))
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        after.append({name: tensor.detach().cpu() for name, tensor in learner.state_dict().items()})
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    before = start.state_dict()
    for name, expected in after[0].items():
        step, found = expected - before[name], after[1][name] - before[name]
        largest = float(step.abs().max())
        torch.testing.assert_close(found, step, rtol=0, atol=0.02 * largest + 1e-6, msg=f"{name}, steps of {largest}")


@pytest.fixture
def settings(shapes: Path, toy_checkpoint: Path, tmp_path: Path) -> dict[str, Any]:
    data = {"kind": "voc", "root": str(shapes), "classes": list(CLASSES.names)}
    return {
        "name": "toy", "precision": "float32", "init": str(toy_checkpoint),
        "train": data | {"split": "train"}, "val": data | {"split": "val"},
        "proposals": {"width": 0, "min_width": 8}, "regions": {"size": 64, "context": 4}, "linear_batches": 2,
        "epochs": 1, "batches_per_epoch": 2, "batch": 8, "foreground": 3, "val_batches": 1, "workers": 0,
        "average_decay": 0.5, "cache": str(tmp_path / "cache"),
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["warp", "shared"])
def test_region_training(settings: dict[str, Any], mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the config to the file: the last layer, fitted on frozen features, is the CPU's; then every layer learns.

    The fit of shared features is not compared: a GPU pads the photographs of a batch to one canvas, and at this size
    the canvas decides what the last cells see.
    """
    if mode == "shared":
        settings |= {"mode": "shared", "images": 2, "shared": {"pyramid": [96, 192], "region": 64, "grid": 14}}
    linear: list[NDArray[np.float32]] = []
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        folder.mkdir()
        (folder / "toy.yaml").write_text(yaml.safe_dump(settings))
        monkeypatch.chdir(folder)
        (run,) = train("toy.yaml", [], device=device)
        fitted, last = (load_file(folder / run / f"{name}.safetensors") for name in ("linear", "last"))
        assert any(not torch.equal(fitted[name], last[name]) for name in last)
        assert all(torch.isfinite(tensor).all() for tensor in last.values())
        linear.append(load_checkpoint(folder / run / "linear.safetensors").network.fc.weight.detach().numpy())
        assert np.isfinite(linear[-1]).all()
        assert np.abs(linear[-1]).max() > 0
    if mode == "warp":
        assert np.corrcoef(linear[0].ravel(), linear[1].ravel())[0, 1] > 0.99


@pytest.mark.parametrize("mode", ["warp", "shared"])
def test_training_in_float16(
    settings: dict[str, Any], mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What auto takes on a GPU without bfloat16; a first scale that overflows skips steps until it fits."""
    if mode == "shared":
        settings |= {"mode": "shared", "images": 2, "shared": {"pyramid": [96, 192], "region": 64, "grid": 14}}
    settings |= {"epochs": 2, "batches_per_epoch": 8}
    found = {}
    for precision in ("float32", "float16"):
        folder = tmp_path / precision
        folder.mkdir()
        (folder / "toy.yaml").write_text(yaml.safe_dump(settings | {"precision": precision}))
        monkeypatch.chdir(folder)
        (run,) = train("toy.yaml", [], device="cuda")
        found[precision] = read_metrics(folder / run)
        last = load_file(folder / run / "last.safetensors")
        assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in last.values())
    assert found["float16"][-1]["skipped_steps"] == 0
    assert found["float16"][-1]["val_loss"] == pytest.approx(found["float32"][-1]["val_loss"], rel=0.1)


def test_an_overflow_of_float16_skips_the_step() -> None:
    layer = nn.Linear(8, 3).to(GPU)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    steps = ScaledSteps(optimiser, GPU, torch.float16)
    before = layer.weight.detach().clone()
    for scale, taken in ((2.0**60, False), (2.0**10, True)):
        steps.load_state_dict(steps.state_dict() | {"scale": scale})
        optimiser.zero_grad()
        with autocast(GPU, torch.float16):
            loss = layer(torch.ones(4, 8, device=GPU)).float().logsumexp(dim=1).mean()
        steps.backward(loss)
        assert steps.step(float(loss)) is taken
        assert torch.equal(layer.weight, before) is not taken
        assert steps.scale == (scale if taken else scale / 2)
    assert steps.skipped == 1


@pytest.mark.parametrize("precision", ["float32", "auto", "float16"])
def test_ap_while_training(
    settings: dict[str, Any], precision: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the saved weights in a detector on this device."""
    settings |= {"precision": precision, "ap_every": 1, "choose_by": "val_ap"}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    (run,) = train("toy.yaml", [], device="cuda")
    rows = read_metrics(tmp_path / run)
    scored = "float32" if precision == "float16" else precision
    expected = independent_ap(tmp_path / run / "last.safetensors", shapes, tmp_path / "cache", scored, device=GPU)
    assert rows[-1]["val_ap"] == pytest.approx(expected, abs=0.02)  # near-ties may fall either way
