"""Copy trained weights to a file of half the size (float16), with their provenance."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detector.commands.arguments import command_parser, start

EXAMPLES = """
export_weights runs/regions_voc/best.safetensors detector/weights/googlenet_voc.safetensors \\
    "data=PASCAL VOC2012, 2,032 images" "command=python tools/train_classifier.py --config regions_voc"
export_weights runs/multibox_voc/best.safetensors multibox_voc.safetensors
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("export_weights", __doc__, EXAMPLES)
    result.add_argument("weights", type=Path, help="a region classifier or MultiBox")
    result.add_argument("target", type=Path, help="the file to write")
    result.add_argument("provenance", nargs="*", metavar="topic=text", help="added to the provenance in the header")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert and print; return the exit code."""
    return start(parser(), arguments, _work, check=_check, stopped="nothing was written")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if any("=" not in text for text in options.provenance):
        parser.error("provenance is given as topic=text")


def _work(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from detector.checkpoint import load_checkpoint, save_checkpoint, weights_format
    from detector.commands.targets import check_target
    from detector.multibox import FORMAT, load_multibox, save_multibox

    check_target(options.target, "weights", [options.weights])
    added = dict(text.split("=", 1) for text in options.provenance)
    if weights_format(options.weights) == FORMAT:
        model = load_multibox(options.weights)
        save_multibox(options.target, replace(model, provenance=model.provenance | added), half=True)
    else:
        classifier = load_checkpoint(options.weights)
        save_checkpoint(options.target, replace(classifier, provenance=classifier.provenance | added), half=True)
    print(f"{options.target}: {options.target.stat().st_size / 2**20:.1f} MiB")
