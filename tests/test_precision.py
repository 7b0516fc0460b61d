"""bfloat16 against float32: a network that scores, a detector, a step of training; and what stays float32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from narrow import make_network
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from detector.checkpoint import find_checkpoint, load_checkpoint
from detector.network.backends import build_backend
from detector.pipeline import Detector
from detector.settings import DetectorConfig
from detector.training.loop import Loop
from detector.training.optimisation import TrainingConfig
from detector.training.task import Batch

NORMS = ("lrn", "batch", "none")


def images(count: int, seed: int = 0) -> Tensor:
    """[N, 3, 64, 64], channels last, of as many contrasts."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, 64, 64, generator=generator) * torch.linspace(20, 80, count).reshape(-1, 1, 1, 1)
    return x.contiguous(memory_format=torch.channels_last)


# ---- scoring


@pytest.mark.parametrize("norm", NORMS)
def test_logits_are_close_to_those_of_float32(norm: str) -> None:
    """Measured: 0.5 % of the largest, which is two roundings to 8 bits."""
    network, x = make_network(norm), images(4)
    with torch.inference_mode():
        full = build_backend("torch", network, size=64, precision="float32")(x).logits
        half = build_backend("torch", network, size=64, precision="bfloat16")(x).logits
    assert half.dtype == full.dtype == torch.float32
    assert half.shape == full.shape == (4, 7)
    difference = float((half - full).abs().max() / full.abs().max())
    assert 0 < difference < 0.02


@pytest.mark.parametrize("norm", NORMS)
def test_the_given_network_is_not_changed(norm: str) -> None:
    network = make_network(norm)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x = images(2)
    with torch.inference_mode():
        full = network(x)
        build_backend("torch", network, size=64, precision="bfloat16")(x)
        assert torch.equal(network(x), full)
    after = network.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_the_trunk_alone_computes_in_bfloat16() -> None:
    """The classifier takes the mean of bfloat16 maps in float32: more bits than the maps have."""
    network, seen = make_network(), list[Tensor]()
    network.fc.register_forward_hook(lambda module, inputs, output: seen.extend((*inputs, output)))
    with torch.inference_mode():
        logits = build_backend("torch", network, size=64, precision="bfloat16")(images(2)).logits
    pooled, output = seen
    assert pooled.dtype == output.dtype == torch.float32
    assert not torch.equal(pooled, pooled.bfloat16().float())
    assert torch.equal(logits, output)


def test_auto_is_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(2)
    network = make_network()
    for capabilities, name in (({}, "float32"), ({"avx512_bf16": True}, "bfloat16")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda capabilities=capabilities: capabilities)
        with torch.inference_mode():
            found = build_backend("torch", network, size=64, precision="auto")(x).logits
            assert torch.equal(found, build_backend("torch", network, size=64, precision=name)(x).logits)


def test_a_detectors_scores() -> None:
    """Of the shipped weights on a photograph; measured: 0.7 % apart. Softmax is float32: rows are 1 to six digits."""
    member = load_checkpoint(find_checkpoint("googlenet_voc"))
    image = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    boxes = np.array([[0, 0, 512, 512], [20, 0, 400, 512], [150, 10, 300, 300], [0, 0, 90, 90]], np.float32)
    full, half = (
        Detector([member], DetectorConfig(backend="torch", precision=name)).score(image, boxes).scores.probabilities
        for name in ("float32", "bfloat16")
    )
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).max() < 0.02
    assert np.array_equal(half.argmax(axis=1), full.argmax(axis=1))
    assert half.argmax(axis=1).tolist() == [0, 1 + member.classes.names.index("person"), 0, 0]
    assert half.sum(axis=1) == pytest.approx(1, abs=1e-6)


def test_refusals() -> None:
    unknown = r"^precision must be one of auto, float32, bfloat16(, int8)?, not 'half'$"
    with pytest.raises(ValueError, match=unknown):
        DetectorConfig(precision="half")
    with pytest.raises(ValueError, match=r"^precision must be one of auto, float32, bfloat16, float16, not 'half'$"):
        TrainingConfig(precision="half")
    with pytest.raises(ValueError, match=unknown):
        build_backend("torch", make_network(), precision="half")
    with pytest.raises(ValueError, match=r"^backend=onnxruntime .*precision=bfloat16$"):
        DetectorConfig(backend="onnxruntime", precision="bfloat16")
    for precision in ("auto", "float32"):
        assert DetectorConfig(backend="onnxruntime", precision=precision).precision == precision


# ---- training


class Classes:
    """A `Task`: random images of random classes, the same at every run."""

    criterion = "loss"
    unit = "images"
    batches_per_epoch = 3

    def __init__(self, norm: str = "lrn") -> None:
        self.network = make_network(norm)
        self.seen: list[torch.dtype] = []  # of logits

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        for number in range(start, stop):
            yield images(4, seed=number) / 50, torch.arange(4) + number % 3

    def inputs(self, batch: Batch) -> Tensor:
        return batch[0]

    def loss(self, batch: Batch) -> Tensor:
        return self._loss(self.network, batch)

    def measure(self, network: nn.Module) -> dict[str, float]:
        with torch.inference_mode():
            return {"loss": float(self._loss(network, next(self.batches(90, 91))))}

    def save(self, network: nn.Module, path: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)

    def contents(self, step: int) -> list[str]:
        return [str(step)]

    def _loss(self, network: nn.Module, batch: Batch) -> Tensor:
        logits = network(batch[0])
        self.seen.append(logits.dtype)
        return F.cross_entropy(logits.float(), batch[1])


def begin(precision: str, folder: Path, norm: str = "lrn", *, accumulate: int = 1) -> tuple[Classes, Loop]:
    task = Classes(norm)
    config = TrainingConfig(
        epochs=1, batch=4, accumulate=accumulate, learning_rate=0.05, batch_norm_batches=2, precision=precision
    )
    return task, Loop(task, config, folder)


def flat(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("norm", ["lrn", "none"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_moves_the_weights_as_in_float32(norm: str, accumulate: int, tmp_path: Path) -> None:
    """Measured: 6 % of its length away.

    Not with batch normalisation: the gradients of random weights are so steep there that noise of 2^-9 turns them.
    """
    moves, losses = {}, {}
    for precision in ("float32", "bfloat16"):
        task, loop = begin(precision, tmp_path, norm, accumulate=accumulate)
        before = flat(task.network)
        losses[precision] = loop.learn(next(task.batches(0, 1)))
        moves[precision] = flat(task.network) - before
        assert set(task.seen) == {getattr(torch, precision)}
        assert not torch.is_autocast_enabled("cpu")
    change = moves["bfloat16"] - moves["float32"]
    assert 0 < change.norm() < 0.15 * moves["float32"].norm()
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.01)


@pytest.mark.parametrize("norm", ["lrn", "batch"])
def test_weights_averages_momentum_and_statistics_stay_float32(norm: str, tmp_path: Path) -> None:
    task, loop = begin("bfloat16", tmp_path, norm)
    (row,) = loop.run()
    assert set(task.seen) == {torch.bfloat16}  # of measuring too
    assert np.isfinite(list(row.values())).all()
    for network in (task.network, loop.average.module):
        tensors = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
        assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert not torch.equal(flat(loop.average.module), flat(task.network))
    momenta = [state["momentum_buffer"] for state in loop.optimiser.state.values()]
    assert {momentum.dtype for momentum in momenta} == {torch.float32}
    for name in ("last", "best"):
        saved = load_file(tmp_path / f"{name}.safetensors")
        assert torch.equal(saved["fc.weight"], loop.average.module.state_dict()["fc.weight"])
    # Small steps are not lost, as they would be in weights of 8 bits.
    weights = flat(task.network)
    assert (weights != weights.bfloat16().float()).float().mean() > 0.9


def test_auto_trains_in_what_the_processor_is_fast_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for capabilities, expected in (({}, torch.float32), ({"amx_bf16": True}, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda capabilities=capabilities: capabilities)
        task, loop = begin("auto", tmp_path)
        loop.learn(next(task.batches(0, 1)))
        assert task.seen == [expected]
