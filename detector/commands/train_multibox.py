"""Train MultiBox, the network that proposes boxes of any class (paper §8)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detector.commands.arguments import command_parser, start
from detector.commands.train_classifier import STOPPED, add_training

NOTES = "Without --config it trains the paper's 800 priors on ILSVRC detection, in data/ILSVRC."
EXAMPLES = """
train_multibox
train_multibox train.root=DIR val.root=DIR init=torchvision
train_multibox --config multibox_voc
train_multibox --config multibox_voc --resume auto
train_multibox --config multibox_voc name=wide head.priors=800 head.hidden=1024
torchrun train_multibox --config multibox_voc train_from=inception_4a
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("train_multibox", __doc__, EXAMPLES, NOTES)
    add_training(result, "detector.training.multibox:MultiBoxTrainingConfig", "ilsvrc_multibox")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; return the exit code."""
    return start(parser(), arguments, _work, stopped=STOPPED)


def _work(options: argparse.Namespace) -> None:
    from detector.commands.needs import check_needs
    from detector.config import load_config
    from detector.training.multibox import MultiBoxTrainingConfig
    from detector.training.run import train_multibox

    config = load_config(MultiBoxTrainingConfig, options.config, options.overrides)
    check_needs("train_multibox", {"train": config.train, "val": config.val}, init=config.init)
    train_multibox(options.config, options.overrides, device=options.device, resume=options.resume == "auto")
