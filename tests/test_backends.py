"""Other runtimes against torch: the ONNX graph, scoring through it, the network that the benchmark calls plain."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from network_speed import Rate, format_rates, plain_copy, time_inference, time_training
from torch import Tensor

from detector import Detector, DetectorConfig
from detector.checkpoint import load_checkpoint
from detector.network.backends import build_backend
from detector.network.export import OnnxNetwork, largest_difference, to_onnx
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig

onnx = pytest.importorskip("onnx", reason="the optional extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the optional extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the optional extra onnx is not installed")


def network(**settings: object) -> GoogLeNet:
    torch.manual_seed(0)
    return GoogLeNet(GoogLeNetConfig(**({"classes": 5, "width": 0.25} | settings))).eval()  # type: ignore[arg-type]


def images(count: int, size: int = 64) -> Tensor:
    return 50 * torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def paper_model() -> bytes:
    return to_onnx(network(), 64)


def test_local_response_normalisation_is_one_operator(paper_model: bytes) -> None:
    nodes = onnx.load_from_string(paper_model).graph.node
    counts = Counter(node.op_type for node in nodes)
    assert counts["LRN"] == 2
    assert counts["Conv"] == 57
    assert set(counts) <= {"Conv", "Relu", "MaxPool", "LRN", "Concat", "ReduceMean", "Gemm"}
    (first, _) = (node for node in nodes if node.op_type == "LRN")
    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in first.attribute}
    assert values == pytest.approx({"alpha": 1e-4, "beta": 0.75, "bias": 1.0, "size": 5})


@pytest.mark.parametrize("count", [1, 3])
def test_onnxruntime_gives_torchs_logits(paper_model: bytes, count: int) -> None:
    own = network()
    x = images(count)
    with torch.no_grad():
        expected = own(x)
    torch.testing.assert_close(OnnxNetwork(paper_model)(x).logits, expected, rtol=1e-4, atol=1e-4)
    channels_last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(OnnxNetwork(paper_model)(channels_last).logits, expected, rtol=1e-4, atol=1e-4)
    assert largest_difference(own, paper_model, x) < 1e-4


def test_box_offsets_are_an_output_of_their_own() -> None:
    own, x = network(regression_cells=1), images(2)
    with torch.no_grad():
        assert own.regression is not None
        own.regression.weight.normal_()
        expected = own.heads(own.trunk(x))
    found = OnnxNetwork(to_onnx(own, 64))(x)
    assert found.offsets is not None
    assert found.offsets.shape == (2, 4, 4)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.offsets, expected.offsets, rtol=1e-3, atol=1e-3)


def test_batch_normalisation_is_folded_into_the_graph() -> None:
    own = network(norm="batch", auxiliary_heads=2, initialisation="xavier").train()
    model = to_onnx(own, 64)
    assert "BatchNormalization" not in {node.op_type for node in onnx.load_from_string(model).graph.node}
    assert largest_difference(own, model, images(2) / 50) < 1e-4
    assert own.auxiliary1 is not None
    assert own.training  # it is somebody's


def test_a_difference_is_noticed(paper_model: bytes) -> None:
    other = network()
    with torch.no_grad():
        other.fc.weight.mul_(1.01)
    assert largest_difference(other, paper_model, images(2)) > 1e-3


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_a_detector_scores_the_same_through_each(toy_checkpoint: Path, backend: str) -> None:
    member = load_checkpoint(toy_checkpoint)
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, 40, 30], [10, 5, 60, 45], [40, 20, 80, 60]], np.float32)
    expected = Detector([member], DetectorConfig(backend="torch")).score(image, boxes).scores.probabilities
    found = Detector([member], DetectorConfig(backend=backend)).score(image, boxes).scores.probabilities
    assert found == pytest.approx(expected, abs=1e-4)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"backend .*torch, onnxruntime.*'tensorrt'"):
        build_backend("tensorrt", network())
    with pytest.raises(ValueError, match=r"backend .*'x'"):
        DetectorConfig(backend="x")
    with pytest.raises(ValueError, match=r"backend=onnxruntime .*cuda"):
        build_backend("onnxruntime", network(), "cuda")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ImportError, match="pip install onnx onnxscript onnxruntime"):
        to_onnx(network(), 64)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install"):
        OnnxNetwork(b"")


def test_the_plain_network_is_the_same_function() -> None:
    own = network()
    plain = plain_copy(own)
    assert sum(isinstance(module, torch.nn.LocalResponseNorm) for module in plain.modules()) == 2
    x = images(2)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), own(x), rtol=1e-4, atol=1e-4)


def test_the_benchmark_measures_what_it_says() -> None:
    rates = time_inference(["ours", "plain"], [1], 2)
    assert [(rate.name, rate.batch) for rate in rates] == [("ours", 1), ("plain", 1)]
    assert all(rate.quartiles[0] > 0 and rate.peak > 100 for rate in rates)
    table = format_rates(
        [replace(rates[0], quartiles=(9.0, 10.0, 11.0)), Rate("torchvision", 4, (1.0, 2.0, 3.0))], 158.267
    )
    cells = [line.split() for line in table.splitlines()]
    assert cells[1][:5] == ["ours", "1", "10.0", "9.0-11.0", "10%"]  # 1.58267 G multiply-adds an image
    assert cells[2] == ["torchvision", "4", "2.0", "1.0-3.0"]
    steps = time_training(2, 2)
    assert set(steps) == {"our loop", "our loop, bfloat16", "plain loop, our network", "plain loop, plain network"}
