"""Fine-tune GoogLeNet to the regions of a data set (paper §8), or train it on whole images (§6)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detector.commands.arguments import Schema, add_config, add_device, command_parser, start

NOTES = "Without --config it trains the region classifier of ILSVRC detection, 200 classes, in data/ILSVRC."
EXAMPLES = """
train_classifier
train_classifier train.root=DIR val.root=DIR init=torchvision
train_classifier --config regions_voc train.root=VOC2012 val.root=VOC2012 val.split=val
train_classifier --config regions_voc --resume auto
train_classifier --config regions_voc name=second seed=1
train_classifier --config googlenet_imagenet train.root=imagenet val.root=imagenet
train_classifier --config objects_voc name=again init_from=runs/objects_voc-1
torchrun train_classifier --config googlenet_imagenet
"""
STOPPED = "the same command with --resume auto resumes the run"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("train_classifier", __doc__, EXAMPLES, NOTES)
    add_training(result, _schema, "ilsvrc_regions")
    return result


def add_training(parser: argparse.ArgumentParser, schema: Schema, default: str) -> None:
    """Add the arguments of a training."""
    add_config(parser, schema, default)
    parser.add_argument("--resume", choices=["auto"], help="resume the run of that name, if there is one")
    add_device(parser)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; return the exit code."""
    return start(parser(), arguments, _work, stopped=STOPPED)


def _schema(options: argparse.Namespace) -> str:
    """Return the schema of the config's task."""
    from detector.config import peek

    if peek(options.config, options.overrides, "task") == "images":
        return "detector.training.images:ImageTrainingConfig"
    return "detector.training.regions:FineTuneConfig"


def _work(options: argparse.Namespace) -> None:
    from detector.commands.needs import check_needs
    from detector.config import load_config
    from detector.training.regions import FineTuneConfig
    from detector.training.run import train

    if _schema(options).endswith(FineTuneConfig.__name__):
        config = load_config(FineTuneConfig, options.config, options.overrides)
        data = {"train": config.train, "val": config.val}
        check_needs("train_classifier", data, init=config.init, multibox=config.proposals.multibox.weights)
    train(options.config, options.overrides, device=options.device, resume=options.resume == "auto")
