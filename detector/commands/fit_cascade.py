"""Fit a rejection layer, and the thresholds of rejection and cascade, to the weights of a detector."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detector.commands.arguments import add_config, add_device, command_parser, start

NOTES = """Needed once for new weights. Weights without ranges for precision=int8 get them beside their file. runs/NAME
gets rejection.safetensors and detector.yaml, which `detect --config` takes, and front.txt and front.png, the mean AP
of the alternatives on val beside their seconds."""
EXAMPLES = """
fit_cascade
fit_cascade detector.models=[runs/mine/best.safetensors] name=mine \\
    'train=[{kind: voc, root: DIR, split: train}]' 'val=[{kind: voc, root: DIR, split: val}]'
fit_cascade detector.extends=fast name=fast images=100
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("fit_cascade", __doc__, EXAMPLES, NOTES)
    add_config(result, "detector.training.cascade:CascadeFitConfig", "cascade_voc0712")
    add_device(result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, print and write; return the exit code."""
    return start(parser(), arguments, _work, stopped="the same command continues")


def _work(options: argparse.Namespace) -> int:
    from detector.commands.run import say_unread
    from detector.config import load_config
    from detector.invocation import command
    from detector.training.cascade import CascadeFitConfig, fit_cascade
    from detector.training.thresholds import format_choices

    config = load_config(CascadeFitConfig, options.config, options.overrides)
    unread: list[str] = []
    fitted = fit_cascade(config, options.device, unread)
    print(format_choices(fitted.choices, fitted.chosen))
    print(f"done: {command('detect')} image.jpg --config {fitted.detector}")
    return say_unread("fit_cascade", unread, "they took no part")
