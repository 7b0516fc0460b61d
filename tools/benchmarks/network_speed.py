"""Time GoogLeNet in one process beside its alternatives, taking turns: inference by batch, and a training step.

    ours           this network, its compiled local response normalisation, channels last
    bfloat16       the same in bfloat16, but for the classifier: faster where the processor multiplies that
    int8           the same in 8-bit integers, but for the first convolution, normalisation and the classifier
    plain          the same layers and weights with F.local_response_norm, channels first: a first implementation
    compile        torch.compile of the plain one
    compile-ours, compile-bfloat16   torch.compile of ours, in both precisions
    onnxruntime    the ONNX export
    torchvision    its googlenet: batch normalisation, 3×3 for 5×5, no local response normalisation; another network

Rates are images/s, medians with quartiles: the machine may be shared.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from turns import STOPPED, benchmark_parser, in_fresh_process, take_turns  # first: chooses how threads wait

# isort: split
import torch
from torch import Tensor, nn

from detector.device import keep_freed_memory
from detector.measuring import Quartiles, peak_memory, quartiles
from detector.network.backends import build_backend
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig, training_loss
from detector.network.lrn import ALPHA, BETA, SIZE, LocalResponseNorm
from detector.network.table1 import count
from detector.table import columns

EXAMPLES = """examples:
  python tools/benchmarks/network_speed.py --repetitions 11
  python tools/benchmarks/network_speed.py --networks ours plain --batches 16
  python tools/benchmarks/network_speed.py --training
"""

CONTESTANTS = (
    "ours",
    "bfloat16",
    "int8",
    "plain",
    "compile",
    "compile-ours",
    "compile-bfloat16",
    "onnxruntime",
    "torchvision",
)
SIDE = 224  # px


@dataclass(frozen=True)
class Rate:
    """The speed of one contestant at one batch size.

    Attributes:
        name: One of CONTESTANTS.
        batch: Number of images.
        quartiles: Quartiles of the images per second.
        peak: Peak memory of a process that did nothing else, MB, Python and PyTorch included; 0 where not measured.
    """

    name: str
    batch: int
    quartiles: Quartiles
    peak: float = 0.0


def plain_copy(network: GoogLeNet) -> GoogLeNet:
    """Copy a network with torch's own normalisation, channels first in memory."""
    plain = copy.deepcopy(network)
    for name, module in list(plain.named_modules()):
        if isinstance(module, LocalResponseNorm):
            plain.set_submodule(name, nn.LocalResponseNorm(SIZE, ALPHA, BETA, 1.0))
    return plain.to(memory_format=torch.contiguous_format)


def build_contestant(name: str) -> Callable[[Tensor], object]:
    """Make the function of images [N, 3, 224, 224] that is timed; each has its own layout in memory."""
    torch.manual_seed(0)
    network = GoogLeNet().eval()
    if name == "ours":
        return lambda x: network(x.contiguous(memory_format=torch.channels_last))
    if name in ("bfloat16", "compile-ours", "compile-bfloat16"):
        backend = "compile" if name.startswith("compile") else "torch"
        ready = build_backend(backend, network, precision="bfloat16" if name.endswith("bfloat16") else "float32")
        return lambda x: ready(x.contiguous(memory_format=torch.channels_last))
    if name == "int8":
        ranges = {layer: 100.0 for layer, _ in network.trunk.named_modules()}  # the speed does not depend on them
        small = build_backend("torch", network, precision="int8", ranges=ranges)
        return lambda x: small(x.contiguous(memory_format=torch.channels_last))
    if name == "plain":
        return plain_copy(network)
    if name == "compile":
        compiled: Callable[[Tensor], object] = torch.compile(plain_copy(network))
        return compiled
    if name == "onnxruntime":
        from detector.network.export import OnnxNetwork, to_onnx

        return OnnxNetwork(to_onnx(network, SIDE))
    from torchvision.models import googlenet

    torchvision: Callable[[Tensor], object] = googlenet(weights=None, aux_logits=False, init_weights=False).eval()
    return torchvision


def time_inference(names: Sequence[str], batches: Sequence[int], repetitions: int) -> list[Rate]:
    """Time every contestant at every batch size, taking turns.

    Args:
        names: Some of CONTESTANTS.
        batches: Numbers of images per call.
        repetitions: Number of timed calls of each, after one that is not.

    Raises:
        ImportError: onnxruntime is among them and not installed.
    """
    keep_freed_memory()
    built = {name: build_contestant(name) for name in names}
    rates = []
    for batch in batches:
        x = torch.randn(batch, 3, SIDE, SIDE)
        with torch.inference_mode():
            seconds = take_turns({name: partial(run, x) for name, run in built.items()}, repetitions)
        for name in names:
            # a compiler's memory is not the network's own
            peak = 0.0 if name.startswith("compile") else in_fresh_process(_peak, name, batch)
            rates.append(Rate(name, batch, _rates(batch, seconds[name]), peak))
    return rates


def time_training(batch: int, repetitions: int) -> dict[str, Quartiles]:
    """Measure the images/s of a training step with auxiliary heads, in our loop and in a plain one."""
    from detector.training.loop import Loop
    from detector.training.optimisation import TrainingConfig
    from detector.training.task import Task

    keep_freed_memory()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, SIDE, SIDE, generator=generator).to(memory_format=torch.channels_last)
    labels = torch.randint(1000, (batch,), generator=generator)
    networks = [GoogLeNet(GoogLeNetConfig(auxiliary_heads=2)) for _ in range(4)]
    config = TrainingConfig(batch=batch, averaging="none", learning_rate=1e-4, precision="float32")
    loop = Loop(cast(Task, _Fixed(networks[0])), config, Path())
    half_loop = Loop(cast(Task, _Fixed(networks[3])), replace(config, precision="bfloat16"), Path())

    def plain_step(network: GoogLeNet) -> Callable[[], object]:
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=2e-4)

        def step() -> None:
            network.train()
            optimiser.zero_grad()
            loss = training_loss(network.forward_with_auxiliary(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            loss.item()

        return step

    steps: dict[str, Callable[[], object]] = {
        "our loop": lambda: loop.learn((images, labels)),
        "our loop, bfloat16": lambda: half_loop.learn((images, labels)),
        "plain loop, our network": plain_step(networks[1]),
        "plain loop, plain network": plain_step(plain_copy(networks[2])),
    }
    return {name: _rates(batch, seconds) for name, seconds in take_turns(steps, repetitions).items()}


class _Fixed:
    """The part of a `Task` that one step of the loop needs."""

    criterion, unit, batches_per_epoch = "", "images", 1_000_000

    def __init__(self, network: GoogLeNet) -> None:
        self.network = network

    def loss(self, batch: tuple[Tensor, ...]) -> Tensor:
        return training_loss(self.network.forward_with_auxiliary(batch[0]), batch[1])


def matrix_product(precision: str, device: torch.device, side: int) -> Callable[[], object]:
    """Make a product of two matrices, whose rate limits what networks reach.

    Args:
        precision: float32, bfloat16 or int8.
        device: Device that multiplies.
        side: Rows and columns.

    Returns:
        A function that multiplies them and returns the product when it is there.
    """
    a = torch.randn(side, side, device=device)
    factor = (32 * a).to(torch.int8) if precision == "int8" else a.to(getattr(torch, precision))
    multiply: Callable[[Tensor, Tensor], Tensor] = torch._int_mm if precision == "int8" else torch.mm

    def product() -> Tensor:
        found = multiply(factor, factor)
        found[0, 0].item()  # waits for a GPU
        return found

    return product


def matrix_rate(side: int = 2048, repetitions: int = 9) -> float:
    """Measure the machine's matrix product, which limits all contestants, in G multiply-adds/s."""
    product = matrix_product("float32", torch.device("cpu"), side)
    _, median, _ = quartiles(take_turns({"": product}, repetitions)[""])
    return side**3 / median / 1e9


def format_rates(rates: Sequence[Rate], limit: float) -> str:
    """Format a line per batch and contestant; the limit is in G multiply-adds/s."""
    per_image = sum(row.multiply_adds for row in count(GoogLeNet())) / 1e9
    rows: list[tuple[str, ...]] = [("network", "batch", "images/s", "quartiles", "of sgemm", "process MB")]
    for rate in rates:
        low, median, high = rate.quartiles
        # torchvision's network has other multiply-adds
        share = "" if rate.name == "torchvision" else f"{median * per_image / limit:.0%}"
        peak = f"{rate.peak:.0f}" if rate.peak else ""
        rows.append((rate.name, str(rate.batch), f"{median:.1f}", f"{low:.1f}-{high:.1f}", share, peak))
    return "\n".join([*columns(rows), f"sgemm: {limit:.0f} G multiply-adds/s; an image: {per_image:.2f} G"])


def _rates(batch: int, seconds: Sequence[float]) -> Quartiles:
    return quartiles([batch / value for value in seconds])


def _peak(name: str, batch: int) -> float:
    run = build_contestant(name)
    x = torch.randn(batch, 3, SIDE, SIDE)
    with torch.inference_mode():
        for _ in range(2):
            run(x)
    return peak_memory()


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    from detector.commands.arguments import add_threads, at_least, start

    parser = benchmark_parser("network_speed", __doc__, EXAMPLES)
    add_threads(parser)
    parser.add_argument("--networks", nargs="+", choices=CONTESTANTS, default=CONTESTANTS, help="(default: all)")
    parser.add_argument("--batches", nargs="+", type=at_least(1), default=[1, 16, 64], help="(default: 1 16 64)")
    parser.add_argument("--repetitions", type=at_least(2), default=7, help="timed calls of each (default: %(default)s)")
    parser.add_argument("--training", action="store_true", help="time a training step of 32 images instead")
    return start(parser, arguments, _work, stopped=STOPPED, printed_only=True)


def _work(options: argparse.Namespace) -> None:
    if options.training:
        for name, (low, median, high) in time_training(32, options.repetitions).items():
            print(f"{name:26} {median:6.2f} images/s ({low:.2f}-{high:.2f})")
    else:
        print(format_rates(time_inference(options.networks, options.batches, options.repetitions), matrix_rate()))


if __name__ == "__main__":
    sys.exit(main())
