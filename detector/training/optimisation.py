"""SGD with momentum, its learning rate schedule, and weight averaging (paper §6).

The paper: "asynchronous stochastic gradient descent with 0.9 momentum, fixed learning rate schedule (decreasing the
learning rate by 4% every 8 epochs)", and "Polyak averaging was used to create the final model". It gives no initial
rate, batch or weight decay; these defaults are BVLC Caffe's or ours, as marked. Our SGD is synchronous: the processes
of torchrun share each batch, where the paper uses DistBelief.

A decay of 4 % in eight epochs leaves 0.28 of the rate after 250 epochs, so it is averaging that makes the weights
converge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from detector.config import check_choice, check_range
from detector.device import TRAINING_PRECISIONS

SCHEDULES = ("step", "poly", "cosine", "constant")
AVERAGES = ("mean", "ema", "none")


@dataclass(frozen=True, kw_only=True)
class OptimisationConfig:
    """How weights are optimised: length, batch, learning rate, averaging.

    Attributes:
        epochs: Number of epochs.
        patience: Measurements in a row, one an epoch unless they are rarer, without a better value of the column by
            which the epoch is chosen, after which the training stops early; 0 trains all epochs. Schedules "cosine"
            and "poly" gain most in their last epochs, which stopping leaves out.
        batch: Examples per step, all processes together.
        accumulate: Number of parts that a batch is processed in, to save memory. The step differs by rounding alone,
            except with batch normalisation, whose statistics are those of a part.
        learning_rate: Initial learning rate, for the whole batch.
        schedule: Learning rate over time: "step" multiplies it by `decay` every `decay_epochs` epochs; "poly" by
            (1 - t)^power, where t is the fraction of the training done; "cosine" by half a cosine; "constant" keeps it.
        decay: Factor applied every `decay_epochs` epochs (schedule "step" only).
        decay_epochs: Epochs between two decays (schedule "step" only).
        power: Exponent of schedule "poly".
        warmup: Number of steps over which the learning rate rises to its initial value.
        momentum: Momentum of SGD, in [0, 1).
        weight_decay: L2 penalty on weights; biases and batch normalisation have none.
        averaging: Which weights are measured and saved: "mean", the mean over all steps since `average_start` (Polyak
            and Juditsky, 1992); "ema", an exponential moving average; "none", the latest.
        average_start: Epochs before averaging begins; until then the latest weights are measured.
        average_decay: Decay of the exponential average, in [0, 1); at most (1 + t) / (10 + t) at step t.
        batch_norm_batches: Training batches from which batch normalisation's statistics are computed before each
            measurement; 0 uses its running averages.
    """

    epochs: int = 10
    patience: int = 0
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
    averaging: str = "mean"  # §6, which does not say whether a plain or an exponential mean
    average_start: float = 0.0
    average_decay: float = 0.9999  # TF-slim inception_v1
    batch_norm_batches: int = 0

    def __post_init__(self) -> None:
        check_range(self, "[1, inf)", "epochs", "batch", "accumulate")
        if self.batch % self.accumulate:
            raise ValueError(f"accumulate must divide batch, and {self.accumulate} does not divide {self.batch}")
        check_choice(self, "schedule", SCHEDULES)
        check_choice(self, "averaging", AVERAGES)
        check_range(self, "(0, inf)", "learning_rate", "decay_epochs", "decay", "power")
        check_range(self, "[0, 1)", "momentum", "average_decay")
        check_range(self, "[0, inf)", "weight_decay", "average_start", "batch_norm_batches", "warmup", "patience")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(OptimisationConfig):
    """Settings that every training has, whatever it learns.

    Attributes:
        name: Name of the run, whose folder is runs/<name>.
        seed: Seed of the order of the examples, of sampling and of dropout.
        workers: Data-loading processes per training process, of one thread each; 0 loads in the training process.
        precision: Number format of the layers: "float32", "bfloat16", "float16" (CUDA only, with scaled gradients), or
            "auto", which is bfloat16 where the device multiplies it faster, else float16 on CUDA from compute
            capability 7, else float32. Weights and averages are always float32.
        save_minutes: Longest time between two saves of the state that --resume auto continues from, minutes; the end
            of an epoch saves too.
        members: Number of runs trained one after another, NAME-1, NAME-2, ..., with seeds seed, seed + 1, ...: an
            ensemble.
        variants: Further settings in which the members differ, a list of key=value texts for each member in turn;
            empty for none (§7: "differ only in sampling methodologies and the random order").
        tensorboard: Whether the metrics are written for TensorBoard too: auto, where its package is installed; true,
            which fails without it; false.
    """

    name: str = "run"
    seed: int = 0
    workers: int = 1
    precision: str = "auto"
    save_minutes: float = 10.0
    members: int = 1
    variants: list[list[str]] = field(default_factory=list)
    tensorboard: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "precision", TRAINING_PRECISIONS)
        check_choice(self, "tensorboard", ("auto", "true", "false"))
        check_range(self, "[1, inf)", "members")
        check_range(self, "[0, inf)", "workers", "seed", "save_minutes")


def learning_rate(config: OptimisationConfig, step: int, batches_per_epoch: int) -> float:
    """Learning rate of a step, counted from 0."""
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
    """Make SGD for the trainable parameters; biases, scales and shifts have no weight decay."""
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
    """Make the averaged copy of a network; buffers of batch normalisation are copied, not averaged."""
    if config.averaging != "ema":
        return AveragedModel(network)
    return AveragedModel(network, multi_avg_fn=_ramped(config.average_decay))


def _ramped(decay: float) -> Callable[[Any, Any, Any], None]:
    """An exponential average with a smaller decay in the first steps, when few weights were averaged."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        steps = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + steps) / (10 + steps)))

    return update
