"""How weights learn: SGD with momentum, its learning rate over the epochs, averaging (paper §6).

The paper: "asynchronous stochastic gradient descent with 0.9 momentum, fixed learning rate schedule (decreasing the
learning rate by 4% every 8 epochs)", and "Polyak averaging was used to create the final model". It gives no rate, no
batch, no weight decay; what stands here is BVLC caffe's or ours, as marked. Ours is synchronous: torchrun's processes
share each batch, which replaces DistBelief.

Four percent in eight epochs is 0.28 after 250: the rate hardly falls, and it is the averaging that settles the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from proposals.settings import PRECISIONS

SCHEDULES = ("step", "poly", "cosine", "constant")
AVERAGES = ("mean", "ema", "none")


@dataclass(frozen=True, kw_only=True)
class OptimisationConfig:
    """What every training states, whatever it learns.

    Attributes:
        name: the folder of the run is runs/<name>.
        epochs: to train for.
        batch: examples a step, all processes together.
        accumulate: parts that a batch is worked through in, for less memory; the step is the same but for rounding, and
            with batch normalisation, which takes each part for itself.
        learning_rate: at the start, for that batch.
        schedule: "step": × decay every decay_epochs; "poly": × (1 - t)^power, t the share done; "cosine": × half a
            cosine; "constant".
        decay: of "step".
        decay_epochs: of "step".
        power: of "poly".
        warmup: steps over which the learning rate rises.
        momentum: of SGD.
        weight_decay: on weights; biases and batch normalisation have none.
        averaging: which weights are measured and kept: "mean" of all steps from average_start on (Polyak and Juditsky,
            1992), "ema" (exponential), "none".
        average_start: epochs before the averaging begins; until then the weights themselves are measured.
        average_decay: of "ema"; at step t at most (1 + t) / (10 + t).
        batch_norm_batches: batches of training images that a network with batch normalisation takes its statistics from
            before each measurement; 0: its running averages.
        seed: of the order, the sampling and dropout.
        workers: processes that read and prepare, for each training process.
        precision: what the layers compute in: float32, bfloat16, or auto: bfloat16 where the device multiplies it
            faster. Weights and averages are float32 always.
        save_minutes: at most so long between two savings of the state that --resume auto takes up; an epoch's end saves
            too.
        members: runs to do one after the other, NAME-1, NAME-2, ..., with seeds seed, seed + 1, ...: an ensemble.
        variants: settings in which members differ besides, as lists of key=value, one for each member in turn; empty:
            in none (§7: "differ only in sampling methodologies and the random order").
    """

    name: str = "run"
    epochs: int = 10
    batch: int = 128
    accumulate: int = 1
    learning_rate: float = 0.01
    schedule: str = "step"  # §6
    decay: float = 0.96  # §6
    decay_epochs: float = 8.0  # §6
    power: float = 0.5  # BVLC quick_solver
    warmup: int = 0
    momentum: float = 0.9  # §6
    weight_decay: float = 0.0002  # BVLC
    averaging: str = "mean"  # §6; whether a plain or an exponential mean it does not say
    average_start: float = 0.0
    average_decay: float = 0.9999  # TF-slim inception_v1
    batch_norm_batches: int = 0
    seed: int = 0
    workers: int = 1
    precision: str = "auto"
    save_minutes: float = 10.0
    members: int = 1
    variants: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulate", "members"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.batch % self.accumulate:
            raise ValueError(f"accumulate must divide batch, and {self.accumulate} does not divide {self.batch}")
        for name, choices in (("schedule", SCHEDULES), ("averaging", AVERAGES), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for name in ("learning_rate", "decay_epochs", "decay", "power"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("momentum", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        for name in (
            "weight_decay",
            "average_start",
            "batch_norm_batches",
            "workers",
            "warmup",
            "seed",
            "save_minutes",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")


def learning_rate(config: OptimisationConfig, step: int, batches_per_epoch: int) -> float:
    """The rate of a step, counted from 0."""
    factor = 1.0
    share = step / (config.epochs * batches_per_epoch)
    match config.schedule:
        case "step":
            factor = math.pow(config.decay, step / batches_per_epoch // config.decay_epochs)
        case "poly":
            factor = math.pow(1 - share, config.power)
        case "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * share))
    return config.learning_rate * factor * min(1.0, (step + 1) / max(1, config.warmup))


def build_optimiser(network: nn.Module, config: OptimisationConfig) -> torch.optim.SGD:
    """SGD over what learns in the network, weight decay on its weights only: not on biases, scales and shifts."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.SGD(
        [
            {"params": [p for p in learning if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in learning if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        momentum=config.momentum,
    )


def build_average(network: nn.Module, config: OptimisationConfig) -> AveragedModel:
    """The averaged weights; the buffers of batch normalisation are the network's own."""
    if config.averaging != "ema":
        return AveragedModel(network)
    return AveragedModel(network, multi_avg_fn=_ramped(config.average_decay))


def _ramped(decay: float) -> Callable[[Any, Any, Any], None]:
    """An exponential average that forgets its beginning faster while it is young."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        steps = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + steps) / (10 + steps)))

    return update
