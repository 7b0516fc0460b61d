"""Find the ranges of a network's activations on some photographs, which precision=int8 needs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detector.commands.arguments import command_parser, start

EXAMPLES = """
calibrate runs/regions_voc/best.safetensors examples/*.jpg
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("calibrate", __doc__, EXAMPLES)
    result.add_argument("weights", type=Path, help="a region classifier or MultiBox; the ranges are written beside it")
    result.add_argument("images", type=Path, nargs="+", help="some dozens of photographs, none of the test data")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Calibrate and print; return the exit code."""
    return start(parser(), arguments, _work, stopped="nothing was written")


def _work(options: argparse.Namespace) -> None:
    from detector.checkpoint import write_ranges
    from detector.data.image import read_image
    from detector.device import keep_freed_memory
    from detector.experiments.ranges import fit_ranges
    from detector.progress import progress

    keep_freed_memory()
    ranges = fit_ranges(options.weights, (read_image(path) for path in progress(options.images, "images")))
    print(f"{write_ranges(options.weights, ranges)}: ranges of {len(ranges)} layers")
