"""Time GoogLeNet beside a plain implementation, torch.compile, onnxruntime and torchvision's."""

from __future__ import annotations

import argparse
import sys

NAMES = (
    "ours",
    "bfloat16",
    "plain",
    "compile",
    "compile-ours",
    "compile-bfloat16",
    "onnxruntime",
    "torchvision",
)
EXAMPLES = """examples:
  python tools/benchmark_network.py --repetitions 11
  python tools/benchmark_network.py --networks ours plain --batches 16
  python tools/benchmark_network.py --training
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, measure, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=NAMES, default=NAMES, help="(default: all)")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16, 64], help="(default: 1 16 64)")
    parser.add_argument("--repetitions", type=int, default=7, help="timed calls of each (default: %(default)s)")
    parser.add_argument("--training", action="store_true", help="time a training step of 32 images instead")
    options = parser.parse_args(arguments)
    if min(options.batches) < 1 or options.repetitions < 2:
        parser.error("batches count from 1, repetitions from 2")

    from detector.commands.run import run

    return run("benchmark_network", lambda: _work(options), stopped="nothing is kept of a benchmark", printed_only=True)


def _work(options: argparse.Namespace) -> None:
    from detector.network_benchmark import format_rates, matrix_rate, time_inference, time_training

    if options.training:
        for name, (low, median, high) in time_training(32, options.repetitions).items():
            print(f"{name:26} {median:6.2f} images/s ({low:.2f}-{high:.2f})")
    else:
        print(format_rates(time_inference(options.networks, options.batches, options.repetitions), matrix_rate()))


if __name__ == "__main__":
    sys.exit(main())
