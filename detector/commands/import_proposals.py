"""Read proposals of another program into a store, which eval_proposals compares and detectors use."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detector.commands.arguments import add_config, command_parser, start

NOTES = (
    "The printed store is compared with eval_proposals stores.NAME=DIR, and used as proposals.own of a detector. "
    "Files: R-CNN's selective-search .mat, a folder of detection-proposals' .mat files, .npz, COCO results as .json, "
    ".csv. What the four numbers of a box mean is known by the format, or found by the images' borders and by the "
    "objects, and is printed; the options state it where neither tells."
)
EXAMPLES = """
import_proposals voc_2007_test.mat data.kind=voc data.root=VOC2007 data.split=test --output runs/theirs
import_proposals edge_boxes/ data.kind=voc data.root=VOC2007 data.split=test --output runs/edge_boxes
import_proposals boxes.csv data.root=photos --columns xyxy --first-pixel 0 --far-edge exclusive --output runs/mine
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("import_proposals", __doc__, EXAMPLES, NOTES)
    add_config(result, "detector.importing.into_store:ImportConfig", None, files="the file, or a folder of .mat files")
    result.add_argument("--output", type=Path, metavar="DIR", help="the store to write")
    result.add_argument("--columns", choices=("xyxy", "yxyx", "xywh"), help="order of a box's four numbers")
    result.add_argument("--first-pixel", type=int, choices=(0, 1), help="coordinate of an image's first pixel")
    result.add_argument("--far-edge", choices=("exclusive", "inclusive"), help="whether x2 and y2 belong to the box")
    result.add_argument("--best", choices=("high", "low", "first"), help="the best box has this score, or comes first")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Import and print the store's folder; return the exit code."""
    return start(parser(), arguments, _work, check=_check, stopped="the same command resumes")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if len(options.source) != 1:
        parser.error("name one file of proposals, or one folder of .mat files")
    if not options.output:
        parser.error("name the store to write with --output DIR")
    if options.columns == "xywh" and options.far_edge:
        parser.error("--far-edge is for corners; x y width height have none")


def _work(options: argparse.Namespace) -> int:
    from detector.commands.run import say, warn
    from detector.config import load_config
    from detector.data import open_dataset
    from detector.importing.into_store import Best, ImportConfig, import_proposals
    from detector.importing.layout import Wanted

    config = load_config(ImportConfig, options.config, options.overrides)
    dataset = open_dataset(config.data)
    warn("import_proposals", dataset.warnings)
    inclusive = None if options.far_edge is None else int(options.far_edge == "inclusive")
    wanted = Wanted(options.columns, options.first_pixel, inclusive)
    best = None if options.best is None else Best(options.best)
    for line in import_proposals(Path(options.source[0]), dataset, options.output, wanted, best):
        say("import_proposals", line)
    print(options.output)
    return 0
