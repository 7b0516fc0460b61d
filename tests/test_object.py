"""A detector among others in one process: what it takes, what it shares, what it leaves alone, what it survives."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detect_runs import make_run
from foreign_weights import to_caffe, to_torchvision
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from detector import Detector, DetectorConfig
from detector import threads as kernel_threads
from detector.checkpoint import ImageClassifier, RegionClassifier, load_any_classifier, load_checkpoint, save_checkpoint
from detector.classification.ensemble import Predictions, classify
from detector.data.ground_truth import ClassTable
from detector.data.image import Image
from detector.detections import Detections
from detector.device import DeviceError, autocast, choose_device, out_of_memory
from detector.model_files import CheckpointError
from detector.multibox import MultiBoxModel, load_multibox, save_multibox
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig, Heads
from detector.network.input import InputConvention
from detector.network.pretrained import load_caffe, load_torchvision
from detector.regions.maps import SharedConfig, SharedNetwork
from detector.regions.warp import RegionConfig, warp
from detector.settings import CascadeConfig, SuppressionConfig
from proposals import selective_search
from proposals.errors import UserError
from proposals.merging import propose
from proposals.multibox.head import MultiBox, MultiBoxConfig, MultiBoxHead
from proposals.multibox.loss import multibox_loss
from proposals.own import SourceError
from proposals.settings import ProposalConfig
from proposals.store import StoreError, digest, store_settings
from proposals.store_writer import StoreWriter

ROOT = Path(__file__).parent.parent
CLASSES = ClassTable(("square", "disc"), (None, None), (1, 2))
CONVENTION = InputConvention((120.0, 115.0, 100.0), (60.0, 61.0, 62.0))
SHARED = SharedConfig(pyramid=[96, 192], region=64, grid=14)
BOXES = np.array([[0, 0, 30, 30], [10, 5, 60, 45], [60, 0, 120, 90], [0, 0, 120, 90]], np.float32)
CONFIG = DetectorConfig(
    proposals=ProposalConfig(width=0, max_boxes=9),
    suppression=SuppressionConfig(min_score=0),
    precision="float32",
    backend="torch",
)


def narrow(**settings: Any) -> GoogLeNet:
    torch.manual_seed(0)
    return GoogLeNet(GoogLeNetConfig(**{"classes": 3, "width": 0.25, "initialisation": "xavier"} | settings))


@pytest.fixture(scope="module")
def members() -> dict[str, RegionClassifier]:
    def member(network: GoogLeNet, shared: SharedConfig | None = None) -> RegionClassifier:
        return RegionClassifier(network, CONVENTION, RegionConfig(64, 4), CLASSES, shared=shared)

    return {
        "warped": member(narrow()),
        "batch normalisation": member(narrow(norm="batch")),
        "shared": member(narrow(norm="none"), SHARED),
    }


@pytest.fixture(scope="module")
def image() -> Image:
    blocks = np.random.default_rng(0).integers(0, 256, (9, 12, 3))
    return blocks.repeat(10, axis=0).repeat(10, axis=1).astype(np.uint8)


KINDS = ["warped", "batch normalisation", "shared"]


# ---- images


def multibox() -> MultiBoxModel:
    network = narrow()
    corners = torch.rand(12, 2, generator=torch.Generator().manual_seed(0)) / 2
    head = MultiBoxHead(
        network.fc.in_features, torch.cat([corners, corners + 0.3], dim=1), MultiBoxConfig(12, hidden=8)
    )
    return MultiBoxModel(MultiBox(network.trunk, head).eval(), network.config, CONVENTION, 64)


def entries(one: RegionClassifier) -> dict[str, Callable[[NDArray[Any]], Any]]:
    """Wherever the public API takes an image -> numbers that depend on it."""
    detector = Detector([one], CONFIG)
    model = multibox()
    whole = ImageClassifier(one.network, CONVENTION, 64)
    found = Detections(np.array([[1.0, 2, 9, 9]]), np.array([0.5]), np.array([0]))
    return {
        "call": lambda image: detector(image).scores,
        "score": lambda image: detector.score(image, BOXES).scores.probabilities,
        "propose": lambda image: propose(image, CONFIG.proposals).boxes,
        "selective_search": lambda image: selective_search(image).boxes,
        "MultiBox": lambda image: model.propose([image])[0][1],
        "whole image": lambda image: classify(whole, image, 1),
        "warp": lambda image: warp(image, BOXES, one.regions, (0.0, 0.0, 0.0)),
        "draw": lambda image: np.asarray(found.plot(image)),
    }


def forms(image: Image) -> dict[str, NDArray[Any]]:
    """The same picture in other arrays; the grey ones of its first channel."""
    grey = image[:, :, 0]
    opaque = np.full(grey.shape, 255, np.uint8)
    return {
        "float32": (image / 255).astype(np.float32),
        "float64": image / 255,
        "uint16": image.astype(np.uint16) * 257,
        "big endian": (image.astype(np.uint16) * 257).astype(">u2"),
        "RGBA": np.dstack([image, opaque]),
        "empty alpha": np.dstack([image, 0 * opaque]),
        "mirrored twice": image[:, ::-1][:, ::-1],
        "grey": grey,
        "grey, one channel": grey[:, :, None],
        "grey, alpha": np.dstack([grey, opaque]),
    }


def test_every_entry_takes_every_form_of_an_image(members: dict[str, RegionClassifier], image: Image) -> None:
    network = copy.deepcopy(members["warped"].network).eval()
    for name, entry in entries(replace(members["warped"], network=network)).items():
        colour, grey = entry(image), entry(np.repeat(image[:, :, :1], 3, axis=2))
        for form, array in forms(image).items():
            before = array.copy()
            assert np.array_equal(entry(array), grey if form.startswith("grey") else colour), (name, form)
            assert np.array_equal(array, before), (name, form)
        assert np.array_equal(entry(image[:, :, 0] > 99), entry(np.where(image[:, :, 0] > 99, 255, 0).astype(np.uint8)))


@pytest.mark.parametrize(
    "bad",
    [
        np.full((90, 120, 3), 255.0),
        np.full((90, 120, 3), np.nan),
        np.full((90, 120, 3), -0.1),
        np.zeros((90, 120, 3), np.int64),
        np.zeros((90, 120, 3), np.uint32),
        np.zeros((90, 120, 3), np.complex64),
        np.zeros((90, 120, 5), np.uint8),
        np.zeros((3, 90, 120), np.uint8),
        np.zeros((1, 90, 120, 3), np.uint8),
        np.zeros((0, 120, 3), np.uint8),
        [[0, 1], [2, 3]],
        torch.zeros(90, 120, 3, dtype=torch.uint8),
    ],
    ids=lambda bad: f"{getattr(bad, 'dtype', type(bad))} {list(getattr(bad, 'shape', []))}",
)
def test_every_entry_rejects_what_is_no_image(bad: Any, members: dict[str, RegionClassifier]) -> None:
    for name, entry in entries(members["warped"]).items():
        try:
            entry(bad)
        except ValueError as error:
            assert "image must be" in str(error), name  # noqa: PT017 - the name of the entry is to be seen
        else:
            pytest.fail(name)


# ---- boxes


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_boxes_that_show_nothing_are_rejected_alike(
    kind: str, mirror: bool, members: dict[str, RegionClassifier], image: Image
) -> None:
    detector = Detector([members[kind]], replace(CONFIG, mirror=mirror, batch=1))
    for bad, reason in (
        ([1000, 1000, 1010, 1010], "outside"),
        ([np.nan, 0, 10, 10], "finite"),
        ([0, 0, np.inf, 10], "finite"),
        ([10, 10, 10, 20], "area"),
        ([20, 20, 10, 10], "area"),
        ([-20, -20, 0, 10], "outside"),
    ):
        with pytest.raises(ValueError, match=f"box 4.*{reason}"):
            detector.score(image, np.concatenate([BOXES, [bad]]))
    with pytest.raises(ValueError, match=r"\[4\]"):
        detector.score(image, BOXES[0])


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_of_whole_numbers_and_lists(kind: str, members: dict[str, RegionClassifier], image: Image) -> None:
    detector = Detector([members[kind]], CONFIG)
    expected = detector.score(image, BOXES)
    for boxes in (BOXES.astype(np.int64), BOXES.astype(np.uint16), BOXES.tolist()):
        run = detector.score(image, boxes)  # type: ignore[arg-type]
        np.testing.assert_array_equal(run.scores.probabilities, expected.scores.probabilities)
        assert run.detections() == expected.detections()


# ---- members that are shared


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_detectors_share_members(kind: str, precision: str, members: dict[str, RegionClassifier], image: Image) -> None:
    """On the device "meta" numbers are nowhere, and a network that is moved there is lost."""
    one = replace(members[kind], network=copy.deepcopy(members[kind].network))
    one.network.train()
    before = {name: tensor.clone() for name, tensor in one.network.state_dict().items()}
    config = replace(CONFIG, precision=precision, backend="torch")
    first = Detector([one], config)
    expected = first.score(image, BOXES).scores.probabilities
    Detector([one, one], config, "meta")
    np.testing.assert_array_equal(first.score(image, BOXES).scores.probabilities, expected)
    np.testing.assert_array_equal(Detector([one], config).score(image, BOXES).scores.probabilities, expected)
    assert one.network.training
    for name, tensor in one.network.state_dict().items():
        assert tensor.device.type == "cpu"
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])
    with torch.no_grad():
        one.network.fc.weight.zero_()  # what its owner does with a member later is nobody else's business
    np.testing.assert_array_equal(first.score(image, BOXES).scores.probabilities, expected)


def test_loading_leaves_torchs_generator_alone(tmp_path: Path, members: dict[str, RegionClassifier]) -> None:
    region, whole = tmp_path / "region.safetensors", tmp_path / "whole.safetensors"
    for one in members.values():
        save_checkpoint(region, one)
        save_checkpoint(whole, ImageClassifier(one.network, CONVENTION, 64))
        box = tmp_path / "box.safetensors"
        save_multibox(box, multibox())
        torch.manual_seed(3)
        expected = torch.rand(3)
        torch.manual_seed(3)
        loaded = [load_checkpoint(region).network, load_any_classifier(whole).network]
        found = load_multibox(box).network
        Detector.load(replace(CONFIG, models=[str(region)]), device="cpu")
        assert torch.equal(torch.rand(3), expected)
        for network in loaded:
            for name, tensor in one.network.state_dict().items():
                assert torch.equal(network.state_dict()[name], tensor), name
            assert not network.training
            assert network.trunk.conv1.conv.weight.is_contiguous(memory_format=torch.channels_last)
            assert all(parameter.requires_grad and parameter.is_leaf for parameter in network.parameters())
        for name, tensor in multibox().network.state_dict().items():
            assert torch.equal(found.state_dict()[name], tensor), name


def test_loading_weights_of_others_leaves_torchs_generator_alone(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    paper = GoogLeNet(GoogLeNetConfig(classes=4)).eval()
    save_file(to_caffe(paper), tmp_path / "caffe.safetensors")
    other = GoogLeNet(GoogLeNetConfig(classes=4, branch3_kernel=3, pool4_kernel=2, norm="batch")).eval()
    state = to_torchvision(other)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    (caffe, _), (torchvision, _) = load_caffe(tmp_path / "caffe.safetensors"), load_torchvision(state)
    assert torch.equal(torch.rand(3), expected)
    for found, network in ((caffe, paper), (torchvision, other)):
        for name, tensor in network.state_dict().items():
            assert torch.equal(found.state_dict()[name], tensor), name


def test_a_file_that_changes_after_loading_changes_no_network(
    tmp_path: Path, members: dict[str, RegionClassifier]
) -> None:
    path = tmp_path / "member.safetensors"
    save_checkpoint(path, members["warped"])
    network = load_checkpoint(path).network
    path.write_bytes(b"")
    assert torch.equal(network.fc.bias, members["warped"].network.fc.bias)


# ---- results and settings as values


def test_detections_are_values() -> None:
    boxes, scores, labels = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]), np.array([0.9, 0.5]), np.array([1, 0])
    one = Detections(boxes, scores, labels)
    assert one == Detections(boxes.astype(np.float32), scores.tolist(), labels.astype(np.int32))  # type: ignore[arg-type]
    assert one[:1] != one
    assert one[::-1] != one
    assert one != Detections(boxes + 1, scores, labels)
    assert one != Detections(boxes, scores / 2, labels)
    assert one != Detections(boxes, scores, labels[::-1])
    assert one != "detections"
    assert Detections.empty() == Detections.empty() == one[:0]
    assert len({one, one[:], Detections(boxes, scores, labels), one[:1], Detections.empty()}) == 3
    zero, negative = (Detections(boxes * sign, scores, labels) for sign in (0.0, -0.0))
    assert zero == negative
    assert hash(zero) == hash(negative)
    boxes[0, 0], scores[0] = 99, 0.1  # the caller's own
    assert one.boxes[0, 0] == 1
    assert one.scores[0] == 0.9
    with pytest.raises(ValueError, match="read-only"):
        one.boxes[0, 0] = 7
    text = repr(one)
    assert "2 detections" in text
    assert "0.9" in text
    assert "\n" not in text
    assert len(repr(Detections(np.zeros((500, 4)), np.zeros(500), np.zeros(500)))) < 500  # type: ignore[arg-type]


def test_runs_and_predictions_compare(members: dict[str, RegionClassifier], image: Image) -> None:
    run, again = (Detector([members["warped"]], CONFIG).score(image, BOXES) for _ in range(2))
    assert run == run
    assert len({run, again}) == 2
    assert run.detections() == again.detections()


def test_settings_are_keys() -> None:
    first, second = (DetectorConfig(models=["a", "b"], proposals=ProposalConfig(own={"x": "m:f"})) for _ in range(2))
    assert first == second
    assert len({first, second, DetectorConfig(models=["b", "a"]), DetectorConfig()}) == 3
    assert hash(ProposalConfig(own={"a": "m:f", "b": "m:g"})) == hash(ProposalConfig(own={"b": "m:g", "a": "m:f"}))
    assert hash(SharedConfig(region=64)) == hash(SharedConfig(region=64))
    assert hash(DetectorConfig(cascade=CascadeConfig(0))) == hash(DetectorConfig())


# ---- a store as the detector's own source


def test_a_store_is_a_source_of_a_detector(
    shapes: Path, toy_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from detector.data.image import read_image

    path = shapes / "JPEGImages" / "val0.png"
    content, photo = path.read_bytes(), read_image(path)
    proposals = propose(photo, ProposalConfig(width=0, min_width=8, max_boxes=5))
    with StoreWriter(tmp_path / "store", store_settings(ProposalConfig()), ["val0"]) as writer:
        writer.append("val0", digest(content), (photo.shape[1], photo.shape[0]), proposals)
        writer.finish()
    settings = ProposalConfig(selective_search=False, own={"mine": str(tmp_path / "store")})
    detector = Detector.load(
        replace(CONFIG, models=[str(toy_checkpoint)], proposals=settings, backend="torch"), device="cpu"
    )
    run = detector.score(content)
    np.testing.assert_allclose(run.boxes, proposals.boxes)
    assert detector(content) == detector(path) == run.detections()
    with pytest.raises(SourceError, match=r"proposals\.own\.mine"):
        detector(photo)
    with pytest.raises(StoreError):
        detector(path.with_name("val1.png"))
    assert make_run([path], tmp_path / "found", detector=detector).failures == []
    assert json.loads((tmp_path / "found" / "val0.json").read_text())["regions"] == 5


# ---- memory


MESSAGES = {
    "CUDA": RuntimeError("CUDA error: out of memory"),
    "CUDA, old": RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max 9.07 GB)"),
    "CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    "Windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
    "NumPy": MemoryError("Unable to allocate 9. GiB"),
}


class Crowded(nn.Module):
    """Linear in the mean colour; more than `room` regions raise."""

    def __init__(self, error: BaseException, room: int) -> None:
        super().__init__()
        self.config = GoogLeNetConfig(classes=3)
        self.trunk = nn.Identity()
        self.linear = nn.Linear(3, 3)
        self.error, self.room, self.asked = error, room, ASKED

    def __deepcopy__(self, memo: dict[int, Any]) -> Crowded:
        result = Crowded(self.error, self.room)
        result.linear.load_state_dict(self.linear.state_dict())
        return result

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(len(x))
        if len(x) > self.room:
            raise self.error
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits

    def heads(self, features: Tensor) -> Heads:
        return Heads(self(features), None)


ASKED: list[int] = []


def crowded(error: BaseException, room: int) -> RegionClassifier:
    ASKED.clear()
    return RegionClassifier(Crowded(error, room), CONVENTION, RegionConfig(64, 4), CLASSES)  # type: ignore[arg-type]


@pytest.mark.parametrize("old", [False, True], ids=["this PyTorch", "PyTorch 2.4"])
@pytest.mark.parametrize("device", list(MESSAGES))
def test_too_little_memory_is_recognised(device: str, old: bool, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    if old:
        monkeypatch.delattr(torch, "OutOfMemoryError", raising=False)
    found = Detector([crowded(MESSAGES[device], 2)], replace(CONFIG, batch=4)).score(image, BOXES).scores.probabilities
    assert found.shape == (4, 3)
    assert ASKED == [4, 2, 2]


@pytest.mark.parametrize("old", [False, True], ids=["this PyTorch", "PyTorch 2.4"])
def test_other_errors_are_not_taken_for_it(old: bool, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    assert out_of_memory(torch.cuda.OutOfMemoryError())
    if old:
        monkeypatch.delattr(torch, "OutOfMemoryError", raising=False)
    assert out_of_memory(torch.cuda.OutOfMemoryError())
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), KeyError(2)):
        with pytest.raises(type(error)):
            Detector([crowded(error, 2)], replace(CONFIG, batch=4)).score(image, BOXES)
        assert ASKED == [4]


def test_a_map_that_does_not_fit_costs_no_batch(
    members: dict[str, RegionClassifier], image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer boxes do not make the trunk's map smaller: the image is the error, and later ones keep their batch."""
    detector = Detector([members["shared"]], replace(CONFIG, batch=8))
    expected = detector.score(image, BOXES).scores.probabilities
    tried = []
    trunk_slice = GoogLeNet.trunk_slice

    def full(self: GoogLeNet, start: str | None = None, stop: str | None = None) -> nn.Sequential:
        if start is None:
            tried.append(stop)
            raise RuntimeError("MPS backend out of memory")
        return trunk_slice(self, start, stop)

    with monkeypatch.context() as patch:
        patch.setattr(GoogLeNet, "trunk_slice", full)
        with pytest.raises(RuntimeError, match="out of memory"):
            detector.score(image, BOXES)
    assert len(tried) == 1
    sizes = []
    heads = SharedNetwork.heads

    def counted(self: SharedNetwork, features: Tensor) -> Heads:
        sizes.append(len(features))
        return heads(self, features)

    monkeypatch.setattr(SharedNetwork, "heads", counted)
    found = detector.score(image, np.tile(BOXES, (20, 1))).scores.probabilities
    np.testing.assert_allclose(found[:4], expected, atol=1e-5)
    assert sizes == [64, 16]


# ---- devices


class NoFloat64(TorchFunctionMode):
    """A device as Apple's: float64 on it is a TypeError. What comes from NumPy, or by `cpu`, is off the device."""

    def __init__(self) -> None:
        super().__init__()
        self.host: set[int] = set()
        self.kept: list[Tensor] = []  # so that no other tensor gets the number of one that is gone
        self.seen = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        inputs = [value for value in args if isinstance(value, Tensor)]
        outputs = [
            value for value in (result if isinstance(result, tuple | list) else [result]) if isinstance(value, Tensor)
        ]
        off = name in ("from_numpy", "cpu") or (
            bool(inputs) and name != "to" and all(id(value) in self.host for value in inputs)
        )
        for tensor in outputs:
            if off:
                self.host.add(id(tensor))
            else:
                self.host.discard(id(tensor))
                self.seen += 1
                if tensor.dtype == torch.float64:
                    raise TypeError(f"{name}: Cannot convert a MPS Tensor to float64 dtype")
            self.kept.append(tensor)
        return result


def test_the_mode_notices_float64() -> None:
    with NoFloat64(), pytest.raises(TypeError, match="float64"):
        torch.ones(3).double()
    with NoFloat64():
        assert torch.ones(3).cpu().double().dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_no_float64_reaches_the_device(kind: str, members: dict[str, RegionClassifier], image: Image) -> None:
    detector = Detector([members[kind]], replace(CONFIG, mirror=True, backend="torch"))
    model = multibox()
    whole = ImageClassifier(copy.deepcopy(members[kind].network).eval(), CONVENTION, 64)
    with NoFloat64() as mode:
        detector.score(image)
        classify(whole, image, 10)
        model.propose([image])
    assert mode.seen > 100


def test_no_float64_reaches_the_device_in_multibox_training() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(12, 2, generator=generator) / 2
    priors = torch.cat([corners, corners + 0.3], dim=1)
    offsets = torch.zeros(1, 12, 4, requires_grad=True)
    with NoFloat64() as mode:
        loss = multibox_loss(offsets, torch.zeros(1, 12), priors, [priors[:3] + 0.01])
        loss.backward()  # type: ignore[no-untyped-call]
    assert mode.seen > 10


def test_devices_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu:0") == choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps:0") == choose_device("mps") == torch.device("mps")
    for name in ("cpu:1", "mps:1", "cuda:99", "", "xpu"):
        with pytest.raises(DeviceError, match=r"cpu, .*mps"):
            choose_device(name)
    assert issubclass(DeviceError, UserError)


def test_a_detector_on_the_cpu_by_its_number(members: dict[str, RegionClassifier], image: Image) -> None:
    expected = Detector([members["shared"]], CONFIG).score(image, BOXES).scores.probabilities
    np.testing.assert_array_equal(
        Detector([members["shared"]], CONFIG, "cpu:0").score(image, BOXES).scores.probabilities, expected
    )


def test_autocast_only_where_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(device: str, *_: Any, **__: Any) -> None:
        raise RuntimeError(f"User specified an unsupported autocast device_type '{device}'")

    monkeypatch.setattr(torch, "autocast", unknown)
    with autocast(torch.device("mps"), torch.float32):
        pass
    with pytest.raises(DeviceError, match="precision=float32"):
        autocast(torch.device("mps"), torch.bfloat16)


# ---- threads


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    made: list[int] = []
    create = ThreadPoolExecutor.__init__

    def counted(self: ThreadPoolExecutor, *arguments: Any, **options: Any) -> None:
        made.append(1)
        create(self, *arguments, **options)

    before = torch.get_num_threads()
    monkeypatch.setattr(ThreadPoolExecutor, "__init__", counted)
    kernel_threads._workers.cache_clear()
    yield made
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [2, 5, 16])
def test_threads_are_made_once(
    threads: int, pools: list[int], members: dict[str, RegionClassifier], image: Image
) -> None:
    expected = Detector([members["warped"]], replace(CONFIG, batch=3)).score(image)
    torch.set_num_threads(threads)
    detector = Detector([members["warped"], members["shared"]], replace(CONFIG, batch=3))
    for _ in range(3):
        run = detector.score(image)
    assert len(pools) <= 2  # of the kernels, and of selective search
    np.testing.assert_array_equal(run.boxes, expected.boxes)


# ---- other systems


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}
    )


ALL_MODULES = """
import importlib, pkgutil, sys
import detector, proposals
for package in (proposals, detector):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(found.name)
"""


def test_everything_imports_where_unix_modules_are_missing() -> None:
    """As on Windows; macOS has them, and no /proc."""
    blocked = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix_ipc")
    done = python(f"import sys\nfor name in {blocked}: sys.modules[name] = None\n" + ALL_MODULES + "print('all')")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "all"


def test_a_store_is_written_and_memory_is_asked_for_without_unix_modules(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "import numpy as np, pathlib\n"
        "from proposals.result import Proposals\n"
        "from proposals.store import ProposalStore, digest\n"
        "from proposals.store_writer import StoreWriter\n"
        f"folder = pathlib.Path({str(tmp_path / 'store')!r})\n"
        "some = Proposals(np.ones((1, 4), 'f4'), np.ones(1, 'f4'), np.zeros(1, 'u1'))\n"
        "with StoreWriter(folder, {}, ['a']) as writer:\n"
        "    writer.append('a', digest(b'a'), (9, 9), some)\n"
        "    writer.finish()\n"
        "from detector import measuring\n"
        "measuring.Path = lambda name: folder / 'no such file'\n"
        "print(len(ProposalStore(folder)), measuring.peak_memory())\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 nan\n"


NOWHERE = """
import numba.core.caching as caching
for locator in vars(caching).values():
    if isinstance(locator, type) and hasattr(locator, "ensure_cache_path"):
        def refuse(self, *_): raise OSError(30, "Read-only file system")
        locator.ensure_cache_path = refuse
"""


def test_kernels_compile_where_no_cache_can_be_written() -> None:
    """As in a container whose files are read-only; root in this test could write anywhere."""
    code = NOWHERE + (
        "import numpy as np, torch\n"
        "from detector.network.lrn import local_response_norm\n"
        "from detector.suppression import class_nms\n"
        "import detector.regions.warp, detector.regions.maps, detector.evaluation\n"
        "import proposals.selective.colour, proposals.selective.segmentation\n"
        "x = torch.ones(1, 5, 2, 2)\n"
        "expected = torch.nn.functional.local_response_norm(x, 5, 1e-4, 0.75, 1.0)\n"
        "print(torch.allclose(local_response_norm(x), expected))\n"
        "print(proposals.selective.colour.to_hsv(np.zeros((1, 1, 3), np.uint8)).tolist())\n"
        "print(proposals.compiling.is_cold('proposals.selective'))\n"  # another process could keep nothing either
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n[[[0, 0, 0]]]\nFalse\n"
    assert done.stderr.startswith("compiling")


def test_kernels_compile_where_the_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(
        "from proposals.compiling import compiled\n@compiled()\ndef add(a, b):\n    return a + b\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import numba.core.caching as caching\n"
        "def full(*_): raise OSError(28, 'No space left on device')\n"
        "caching.IndexDataCacheFile.save = full\n"
        "import kernels\n"
        "print(kernels.add(1, 2))\n"
    )
    done = python(code, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3\n"


# ---- errors that the user can fix


def test_what_a_user_can_fix_is_a_user_error(tmp_path: Path, members: dict[str, RegionClassifier]) -> None:
    other = ClassTable(("a", "b"), (None, None), (1, 2))
    for make in (
        lambda: Detector([members["warped"], replace(members["warped"], classes=other)], CONFIG),
        lambda: Detector([members["warped"]], replace(CONFIG, regression=True)),
        lambda: Detector([members["warped"]], replace(CONFIG, backend="onnxruntime"), "meta"),
        lambda: Predictions.load(tmp_path / "nowhere.npz"),
        lambda: propose(np.zeros((9, 9, 3), np.uint8), ProposalConfig(own={"x": "no.such:thing"})),
        lambda: Detector([members["warped"]], replace(CONFIG, proposals=ProposalConfig(own={"x": "no.such:thing"}))),
    ):
        with pytest.raises(UserError):
            make()
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04torn")
    with pytest.raises(UserError, match="torn"):
        Predictions.load(tmp_path / "torn.npz")
    assert issubclass(CheckpointError, UserError)
