"""int8 against integers in NumPy and float32; ranges; what saturates; what precision=auto measures and keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow import make_network
from torch import Tensor, nn

from detector.checkpoint import RegionClassifier, load_checkpoint, read_ranges, write_ranges
from detector.device import DeviceError
from detector.model_files import SHIPPED, CheckpointError, ranges_file
from detector.network import fastest
from detector.network.backends import build_backend
from detector.network.folding import fold_batch_norm
from detector.network.googlenet import GoogLeNet
from detector.network.quantised import (
    QuantisedConvolution,
    calibrate,
    has_int8,
    prepare_trunk,
    quantise_trunk,
    to_bytes,
)
from detector.pipeline import Detector
from detector.regions.maps import FIRST_REGION_LAYER, LAST_IMAGE_LAYER
from detector.settings import DetectorConfig

CPU = torch.device("cpu")
needs_int8 = pytest.mark.skipif(not has_int8(), reason="this build of PyTorch has no int8 convolutions")


def images(count: int, seed: int = 0) -> Tensor:
    """[N, 3, 64, 64], channels last."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, 64, 64, generator=generator) * torch.linspace(20, 80, count).reshape(-1, 1, 1, 1)
    return x.contiguous(memory_format=torch.channels_last)


def ranges_of(network: GoogLeNet) -> dict[str, float]:
    folded = fold_batch_norm(network)
    with torch.inference_mode():
        return calibrate(folded.trunk, lambda: folded.trunk(images(8, seed=1)))


# ---- one convolution


def integers(x: Tensor, conv: nn.Conv2d, scale: float, out_scale: float) -> np.ndarray:
    """The convolution window by window in int64: [N, C, H, W] uint8 -> [N, F, h, w] of 0..255."""
    weight = conv.weight.detach().double().numpy()
    weight_scale = np.abs(weight).max(axis=(1, 2, 3)) / 63
    steps = np.rint(weight / weight_scale[:, None, None, None]).astype(np.int64)
    pad, side, stride = int(conv.padding[0]), conv.kernel_size[0], conv.stride[0]
    padded = np.pad(x.numpy().astype(np.int64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    height, width = ((size - side) // stride + 1 for size in padded.shape[2:])
    result = np.empty((len(x), len(weight), height, width))
    for row in range(height):
        for column in range(width):
            top, left = row * stride, column * stride
            window = padded[:, :, top : top + side, left : left + side]
            total = np.einsum("nchw,fchw->nf", window, steps)
            assert conv.bias is not None
            value = total * weight_scale * scale + conv.bias.detach().double().numpy()
            result[:, :, row, column] = np.clip(value / out_scale, 0, 255)
    return result


@needs_int8
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2)])
def test_a_convolution_is_that_of_integers(kernel: int, stride: int) -> None:
    """Within half a step, and a hundredth for rounding in float32."""
    torch.manual_seed(kernel)
    conv = nn.Conv2d(24, 40, kernel, stride, padding=kernel // 2)
    x = torch.randint(0, 256, (2, 24, 9, 11), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    y = QuantisedConvolution(conv, 0.02, 0.03)(x)
    expected = integers(x, conv, 0.02, 0.03)
    assert y.dtype == torch.uint8
    assert np.abs(y.numpy() - expected).max() <= 0.51
    assert 0 < expected.mean() < 255
    full = QuantisedConvolution(conv, 0.02, None)(x)
    assert full.dtype == torch.float32
    np.testing.assert_allclose(np.clip(full.numpy() / 0.03, 0, 255), expected, atol=0.01)


SATURATION = """
import torch
from torch import nn
from detector.network import quantised
quantised.TOP = {top}
conv = nn.Conv2d(64, 16, 1, bias=False)
nn.init.ones_(conv.weight)
x = torch.full((1, 64, 8, 8), 255, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
print(float(quantised.QuantisedConvolution(conv, 1.0, None)(x).mean()))
"""


def largest_sum(top: int) -> float:
    """64 products of the largest byte and the largest weight, added on a processor restricted to AVX2."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", SATURATION.format(top=top)]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


@needs_int8
@pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="not a processor with AVX2")
def test_the_largest_products_do_not_saturate_on_avx2() -> None:
    assert largest_sum(63) == pytest.approx(64 * 255)
    if largest_sum(127) == pytest.approx(64 * 255):
        pytest.skip("this version of oneDNN adds without saturating: 8-bit weights would do")


def test_bytes_are_rounded_to_the_nearest_and_clipped() -> None:
    x = torch.tensor([0.0, 0.9, 1.1, 2.0, 508.9, 511.0, 1e6]).reshape(1, 7, 1, 1)
    assert to_bytes(x, 2.0).flatten().tolist() == [0, 0, 1, 1, 254, 255, 255]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 5, 7, 4, generator=generator) * 300
    assert torch.equal(to_bytes(x, 0.5), (x / 0.5).round().clamp(0, 255).to(torch.uint8))


# ---- the trunk


@needs_int8
@pytest.mark.parametrize("norm", ["lrn", "batch", "none"])
def test_logits_are_close_to_those_of_float32(norm: str) -> None:
    network, x = make_network(norm), images(6)
    ranges = ranges_of(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.inference_mode():
        full = build_backend("torch", network, size=64)(x).logits
        small = build_backend("torch", network, size=64, precision="int8", ranges=ranges)(x).logits
    assert small.dtype == torch.float32
    # Measured: 6 to 8 % of the largest, of noise in a narrow network; a wrong scale changes more than half.
    difference = float((small - full).abs().max() / full.abs().max())
    assert 0 < difference < 0.15
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@needs_int8
def test_the_trunk_may_be_cut_after_a_layer() -> None:
    network = make_network()
    ranges = ranges_of(network)
    network.trunk = quantise_trunk(network.trunk, ranges, cut=(LAST_IMAGE_LAYER,))
    with torch.inference_mode():
        whole = network.trunk(images(2))
        maps = network.trunk_slice(None, FIRST_REGION_LAYER)(images(2))
        parts = network.trunk_slice(FIRST_REGION_LAYER)(maps)
    assert maps.dtype == parts.dtype == torch.float32
    assert torch.equal(parts, whole)


@needs_int8
def test_a_clipped_range_is_found_where_it_loses_less() -> None:
    """Even values keep their whole range; of Gaussian ones the largest are clipped."""
    values = torch.rand(1, 1, 100, 100, generator=torch.Generator().manual_seed(0))
    trunk = nn.Sequential()
    trunk.add_module("same", nn.Identity())
    (top,) = calibrate(trunk, lambda: trunk(values)).values()
    assert 0.97 <= top <= 1
    normal = torch.randn(1, 1, 100, 100, generator=torch.Generator().manual_seed(0)).abs()
    normal[0, 0, 0, 0] = 6
    (top,) = calibrate(trunk, lambda: trunk(normal)).values()
    scales = {t: float(((normal / t * 255).round().clamp(0, 255) * t / 255 - normal).square().mean()) for t in (top, 6)}
    assert top < 6
    assert scales[top] < scales[6]


@needs_int8
def test_what_has_no_int8_says_so() -> None:
    network = make_network()
    with pytest.raises(DeviceError, match=r"^precision=int8 needs the ranges .*fit.cascade"):
        build_backend("torch", network, precision="int8")
    with pytest.raises(DeviceError, match="a cuda device has no int8 convolutions; set precision=auto"):
        prepare_trunk(network.trunk, "int8", torch.device("cuda"), {"conv1": 1.0})
    naive = make_network(inception="naive")
    with pytest.raises(ValueError, match=r"^int8 has no form of the layer inception_3a \(NaiveInception\)"):
        quantise_trunk(naive.trunk, ranges_of(naive))
    with pytest.raises(ValueError, match="the range of norm1 is missing"):
        quantise_trunk(network.trunk, {"conv1": 1.0})
    with pytest.raises(ValueError, match=r"leave out precision=int8$"):
        DetectorConfig(backend="onnxruntime", precision="int8")


# ---- ranges beside weights


def test_ranges_are_read_back_for_their_weights_alone(tmp_path: Path) -> None:
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(b"one")
    assert read_ranges(weights) is None
    write_ranges(weights, {"norm1": 1.23456789, "inception_3a": 400.0})
    assert read_ranges(weights) == {"norm1": 1.23457, "inception_3a": 400.0}
    weights.write_bytes(b"another")
    assert read_ranges(weights) is None
    for broken in ("{", "[]", json.dumps({"weights_sha256": "", "ranges": {"norm1": 0}})):
        ranges_file(weights).write_text(broken)
        with pytest.raises(CheckpointError, match="holds no ranges of activations"):
            read_ranges(weights)


def test_shipped_ranges_belong_to_their_weights() -> None:
    """Those of both presets: without them precision=int8 is refused, and auto never takes it."""
    for name in ("shared_voc0712", "googlenet_voc0712", "multibox_voc"):
        ranges = read_ranges(SHIPPED / f"{name}.safetensors")
        assert ranges is not None
        assert {"norm1", "inception_4e", "inception_5b"} <= ranges.keys()


# ---- auto


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A processor that reports AVX2, a cache of its own, and a list of what is measured: int8 twice as fast."""
    measured: list[str] = []

    def measure(plain: str) -> dict[str, float]:
        measured.append(plain)
        return {plain: 0.2, "int8": 0.1}

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    monkeypatch.setattr(fastest, "measure", measure)
    fastest._fastest.cache_clear()
    yield measured
    fastest._fastest.cache_clear()


@needs_int8
def test_auto_measures_once_for_a_machine(measurements: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def again() -> str:
        fastest._fastest.cache_clear()  # as a new process
        return fastest.scoring_precision("auto", CPU, calibrated=True)

    assert [again(), again()] == ["int8", "int8"]
    assert measurements == ["float32"]
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # another machine, as far as speed goes
    assert again() == "int8"
    assert len(measurements) == 2
    kept = json.loads(fastest.cache_file().read_text())
    fastest.cache_file().write_text(json.dumps({key: {"float32": 0.11, "int8": 0.1} for key in kept}))
    assert again() == "float32"  # not faster by the margin
    for damaged in ("{", "[]", "null", '{"x": 1}'):
        fastest.cache_file().write_text(damaged)
        assert again() == "int8"
    assert len(measurements) == 6


@needs_int8
def test_auto_measures_nothing_where_int8_cannot_be(measurements: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    choose = fastest.scoring_precision
    assert choose("auto", CPU, calibrated=False) == "float32"
    assert choose("int8", CPU, calibrated=False) == "int8"
    assert choose("float32", CPU, calibrated=True) == "float32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert choose("auto", CPU, calibrated=True) == "float32"
    assert measurements == []


def test_a_restricted_processor_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    for limit, expected in (("AVX2", "float32"), ("avx512_core", "float32"), ("AVX512_CORE_BF16", "bfloat16")):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
        assert fastest.scoring_precision("auto", CPU, calibrated=False) == expected


@needs_int8
def test_a_cache_that_cannot_be_written_is_done_without(
    measurements: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert fastest.scoring_precision("auto", CPU, calibrated=True) == "int8"


@needs_int8
def test_the_measurement_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    seconds = fastest.measure("float32")
    assert seconds.keys() == {"float32", "int8"}
    assert all(0 < value < 60 for value in seconds.values())
    assert torch.equal(torch.rand(2), expected)


@needs_int8
def test_a_detector_says_which_precision_it_took(toy_checkpoint: Path, measurements: list[str]) -> None:
    member = load_checkpoint(toy_checkpoint)
    config = DetectorConfig(models=["toy"])
    assert Detector([member], config).precision == "float32"
    calibrated = RegionClassifier(**{**vars(member), "ranges": dict.fromkeys(ranges_of(member.network), 100.0)})
    assert Detector([calibrated], config).precision == "int8"
    with pytest.raises(DeviceError, match="these weights have none"):
        Detector([member], DetectorConfig(models=["toy"], precision="int8"))
