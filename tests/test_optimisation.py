"""Learning rates, what weight decay works on, and averages of weights, against their formulas (paper §6)."""

from __future__ import annotations

from math import cos, pi, prod
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.training.optimisation import (
    OptimisationConfig,
    TrainingConfig,
    build_average,
    build_optimiser,
    learning_rate,
)

# ---- rates


@pytest.mark.parametrize(("epoch", "power"), [(0, 0), (7, 0), (8, 1), (15, 1), (16, 2), (249, 31), (250, 31)])
@pytest.mark.parametrize("batches", [1, 7, 10_010])
def test_the_papers_schedule(epoch: int, power: int, batches: int) -> None:
    """Four percent less every eight epochs, from the first step of the epoch to its last."""
    config = OptimisationConfig(epochs=251, learning_rate=0.04)
    for step in (epoch * batches, (epoch + 1) * batches - 1):
        assert learning_rate(config, step, batches) == pytest.approx(0.04 * 0.96**power, rel=1e-12)


def test_a_step_of_part_of_an_epoch() -> None:
    config = OptimisationConfig(decay_epochs=0.5, decay=0.1, learning_rate=1.0)
    rates = [learning_rate(config, step, 4) for step in range(6)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_poly(power: float) -> None:
    config = OptimisationConfig(epochs=10, schedule="poly", power=power, learning_rate=0.2)
    rates = [learning_rate(config, step, 4) for step in range(41)]
    assert rates[0] == 0.2
    assert rates[20] == pytest.approx(0.2 * 0.5**power)
    assert rates[39] == pytest.approx(0.2 * (1 / 40) ** power)  # the last step
    assert rates[40] == 0
    assert rates == sorted(rates, reverse=True)


def test_cosine() -> None:
    config = OptimisationConfig(epochs=10, schedule="cosine", learning_rate=0.2)
    rates = [learning_rate(config, step, 4) for step in range(41)]
    assert rates[0] == 0.2
    assert rates[10] == pytest.approx(0.1 * (1 + 2**-0.5))
    assert rates[20] == pytest.approx(0.1)
    assert rates[39] == pytest.approx(0.1 * (1 - cos(pi / 40)))
    assert rates[40] == pytest.approx(0, abs=1e-12)
    assert rates == sorted(rates, reverse=True)


def test_constant() -> None:
    config = OptimisationConfig(epochs=100, schedule="constant", learning_rate=0.2)
    assert {learning_rate(config, step, 3) for step in range(300)} == {0.2}


@pytest.mark.parametrize("schedule", ["step", "poly", "cosine", "constant"])
def test_warmup_rises_to_the_schedule(schedule: str) -> None:
    config = OptimisationConfig(schedule=schedule, learning_rate=0.2, warmup=5)
    cold = OptimisationConfig(schedule=schedule, learning_rate=0.2)
    shares = [learning_rate(config, step, 3) / learning_rate(cold, step, 3) for step in range(10)]
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1])


# ---- steps


def test_weight_decay_is_for_weights_alone() -> None:
    network = GoogLeNet(GoogLeNetConfig(classes=3, width=0.25, norm="batch", auxiliary_heads=2))
    network.trunk.get_submodule("conv1").requires_grad_(False)
    optimiser = build_optimiser(network, OptimisationConfig(weight_decay=0.003, learning_rate=0.7, momentum=0.8))
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert len(decay) == sum(len(group["params"]) for group in optimiser.param_groups)  # none twice
    assert {(group["lr"], group["momentum"]) for group in optimiser.param_groups} == {(0.7, 0.8)}

    expected: dict[int, float] = {}
    for name, module in network.named_modules():
        if name.startswith("trunk.conv1."):
            continue
        if isinstance(module, nn.Conv2d | nn.Linear):
            expected[id(module.weight)] = 0.003
            if module.bias is not None:
                expected[id(module.bias)] = 0.0
        elif isinstance(module, nn.BatchNorm2d):
            expected |= {id(module.weight): 0.0, id(module.bias): 0.0}
    assert decay == expected
    frozen = {id(p) for p in network.trunk.get_submodule("conv1").parameters()}
    assert len(frozen) == 3  # weights, scale and shift
    assert decay.keys() | frozen == {id(p) for p in network.parameters()}


def test_steps_of_sgd() -> None:
    """v = momentum v + gradient + decay w; w -= rate v; three steps of it, and no decay of the bias."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    optimiser = build_optimiser(layer, OptimisationConfig(learning_rate=0.1, momentum=0.9, weight_decay=0.5))
    x, target = torch.randn(4, 3), torch.randn(4, 2)
    w, b = (p.detach().double().numpy().copy() for p in (layer.weight, layer.bias))
    v_w, v_b = np.zeros_like(w), np.zeros_like(b)
    for _ in range(3):
        optimiser.zero_grad()
        (0.5 * (layer(x) - target) ** 2).sum().backward()
        optimiser.step()
        error = x.double().numpy() @ w.T + b - target.double().numpy()  # [4, 2]
        v_w = 0.9 * v_w + error.T @ x.double().numpy() + 0.5 * w
        v_b = 0.9 * v_b + error.sum(axis=0)
        w, b = w - 0.1 * v_w, b - 0.1 * v_b
        assert layer.weight.detach().numpy() == pytest.approx(w, rel=1e-4, abs=1e-5)
        assert layer.bias.detach().numpy() == pytest.approx(b, rel=1e-4, abs=1e-5)


# ---- averages


def averages(config: OptimisationConfig, weights: NDArray[np.float64]) -> list[Tensor]:
    """The average after each of the weights [T, 2]."""
    layer = nn.Linear(2, 1, bias=False).double()
    average = build_average(layer, config)
    found = []
    for row in torch.from_numpy(weights):
        with torch.no_grad():
            layer.weight.copy_(row[None])
        average.update_parameters(layer)
        (parameter,) = average.module.parameters()
        found.append(parameter.detach()[0].clone())
    assert torch.equal(layer.weight.detach()[0], torch.from_numpy(weights[-1]))  # the learner is not touched
    return found


WEIGHTS = np.random.default_rng(0).normal(size=(60, 2))


def test_a_mean_is_the_arithmetic_mean() -> None:
    for count, found in enumerate(averages(OptimisationConfig(), WEIGHTS), 1):
        assert found.numpy() == pytest.approx(WEIGHTS[:count].mean(axis=0), abs=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.2, 0.7, 0.9999])
def test_an_exponential_average_in_closed_form(decay: float) -> None:
    """Weights k stand for (1 - d_k) times the product of later d; those of the first step are where it begins."""
    for count, found in enumerate(averages(OptimisationConfig(averaging="ema", average_decay=decay), WEIGHTS), 1):
        d = [0.0] + [min(decay, (1 + t) / (10 + t)) for t in range(1, count)]
        shares = [(1 - d[k]) * prod(d[k + 1 :]) for k in range(count)]
        assert sum(shares) == pytest.approx(1)
        assert found.numpy() == pytest.approx(np.array(shares) @ WEIGHTS[:count], abs=1e-12)


@pytest.mark.parametrize("averaging", ["mean", "ema", "none"])
def test_an_average_begins_as_a_copy(averaging: str) -> None:
    layer = nn.Linear(2, 1)
    average = build_average(layer, OptimisationConfig(averaging=averaging))
    assert int(average.n_averaged) == 0
    weight = average.module.get_parameter("weight")
    assert torch.equal(weight, layer.weight)
    assert weight.data_ptr() != layer.weight.data_ptr()


@pytest.mark.parametrize("averaging", ["mean", "ema"])
def test_buffers_are_the_networks_own(averaging: str) -> None:
    """The statistics of the last step, not a mean of all."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), norm).train()
    average = build_average(network, OptimisationConfig(averaging=averaging))
    for step in range(4):
        network(torch.randn(8, 3, 2, 2) + step)
        with torch.no_grad():
            norm.bias.fill_(step)
        average.update_parameters(network)
        for name, buffer in network.named_buffers():
            assert torch.equal(average.module.get_buffer(name), buffer)
    assert int(average.module.get_buffer("1.num_batches_tracked")) == 4
    assert not torch.equal(average.module.get_parameter("1.bias"), norm.bias)


# ---- settings


def test_the_papers_settings_are_the_defaults() -> None:
    config = OptimisationConfig()
    assert (config.momentum, config.schedule, config.decay, config.decay_epochs) == (0.9, "step", 0.96, 8)
    assert config.averaging == "mean"


AT_LEAST_1 = ("epochs", "batch", "accumulate", "members")
ABOVE_0 = ("learning_rate", "decay_epochs", "decay", "power")
SHARES = ("momentum", "average_decay")
AT_LEAST_0 = ("weight_decay", "average_start", "batch_norm_batches", "workers", "warmup", "seed", "patience")


@pytest.mark.parametrize(
    "settings",
    [
        *({name: 0} for name in (*AT_LEAST_1, *ABOVE_0)),
        *({name: -0.5} for name in ABOVE_0),
        {"learning_rate": float("nan")},
        *({name: value} for name in SHARES for value in (1.0, -0.1)),
        *({name: -1} for name in AT_LEAST_0),
        {"batch": 10, "accumulate": 3},
        {"schedule": "linear"},
        {"averaging": "swa"},
    ],
    ids=str,
)
def test_refuses_settings(settings: dict[str, Any]) -> None:
    name, value = list(settings.items())[-1]
    with pytest.raises(ValueError, match=f"^{name} .*{value}"):
        TrainingConfig(**settings)


def test_takes_settings_at_their_limits() -> None:
    limits: dict[str, Any] = dict.fromkeys(AT_LEAST_1, 1) | dict.fromkeys((*AT_LEAST_0, *SHARES), 0)
    TrainingConfig(**limits)
    OptimisationConfig(batch=12, accumulate=3)
