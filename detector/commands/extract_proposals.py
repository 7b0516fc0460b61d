"""Propose boxes on a data set or on image files and keep them in a store."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from detector.commands.arguments import add_config, command_parser, start

NOTES = "Under torchrun each process takes the part of its rank, as --shard does."
EXAMPLES = """
extract_proposals photos/ --output runs/proposals_photos
extract_proposals data.kind=voc data.root=VOC2012 data.split=train workers=4
extract_proposals photos/ --output store proposals.mode=quality proposals.superpixel_scale=1
extract_proposals photos/ --output store --shard 2/8
extract_proposals data.kind=ilsvrc data.root=data/ILSVRC data.split=val1+train exhaustive=true
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("extract_proposals", __doc__, EXAMPLES, NOTES)
    add_config(result, "detector.extraction:ExtractionConfig", None, files="image files and folders")
    result.add_argument("--output", type=Path, metavar="DIR", help="the store (default for a data set: in its cache)")
    result.add_argument("--shard", type=_shard, metavar="I/N", help="extract part I of N, from 1 (default: torchrun's)")
    result.add_argument("--recursive", action="store_true", help="search folders within folders too")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Extract and print the store's folder; return the exit code."""
    return start(parser(), arguments, _work, check=_check, stopped="the same command resumes the run")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.source and not options.output:
        parser.error("name the store of these images with --output DIR")


def _work(options: argparse.Namespace) -> int:
    from detector.commands.opencv import check_opencv

    check_opencv()
    from detector.commands.run import say, warn
    from detector.config import ConfigError, load_config
    from detector.data import open_dataset
    from detector.data.dataset import sources_of
    from detector.data.ground_truth import exhaustive_part
    from detector.data.listing import list_images
    from detector.extraction import ExtractionConfig, cache_folder, extract

    config = load_config(ExtractionConfig, options.config, options.overrides)
    if bool(options.source) == bool(config.data):
        raise ConfigError("name image files or folders, or a data set as data.kind=... data.root=..., one of the two")
    not_listed: tuple[str, ...] = ()
    lists: list[dict[str, Path]] = []  # of the images of a store, by name
    if config.data:
        datasets = [open_dataset(data) for data in sources_of(config.data)]
        if config.exhaustive:
            some = [dataset for dataset in datasets if any(record.exhaustive for record in dataset.records)]
            datasets = [exhaustive_part(dataset) for dataset in some or datasets]
        for dataset in datasets:
            lists.append({record.image_id: record.path for record in dataset.records})
            warn("extract_proposals", dataset.warnings)
        if options.output and len(lists) > 1:
            raise ConfigError("--output names one store, and each data set of a list has its own; leave it out")
    else:
        listing = list_images(options.source, recursive=options.recursive)
        # a store is UTF-8
        lists = [{str(path).encode(errors="backslashreplace").decode(): path for path in listing.paths}]
        not_listed = listing.failures
        for line in listing.warnings:
            say("extract_proposals", line)
    rank, ranks = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    shard = options.shard or (int(rank) + 1, int(ranks))
    label = f"shard {shard[0]}/{shard[1]}" if shard[1] > 1 else "proposals"
    for line in not_listed:
        say("extract_proposals", line)
    incomplete = bool(not_listed)
    for images in lists:
        folder = options.output or cache_folder(images, config.proposals, Path(config.cache))
        failures = extract(images, config.proposals, folder, workers=config.workers, shard=shard, label=label)
        for line in failures:
            say("extract_proposals", line)
        if failures:
            say(
                "extract_proposals",
                f"{len(failures)} of {len(images)} images cannot be read, the others are stored; "
                "fix or remove those and run the same command again",
            )
            incomplete = True
        else:
            print(folder)
    return 1 if incomplete else 0


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, not {text!r}")
    return int(number), int(count)
