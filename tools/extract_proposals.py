"""Propose boxes on a data set or on image files and keep them in a store; a killed run goes on where it was."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

EXAMPLES = """Under torchrun each process takes the part of its rank, as --shard does.

examples:
  python tools/extract_proposals.py photos/ --output runs/proposals_photos
  python tools/extract_proposals.py data.kind=voc data.root=VOC2012 data.split=train workers=4
  python tools/extract_proposals.py photos/ --output store proposals.mode=quality proposals.superpixel_scale=1
  python tools/extract_proposals.py photos/ --output store --shard 2/8
  python tools/extract_proposals.py data.kind=ilsvrc data.root=ILSVRC data.split=val1+train exhaustive=true
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, extract, print; returns the exit status."""
    from detector.commands.arguments import parse, split_settings

    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="*", help="image files and folders, and settings as key=value")
    parser.add_argument("--config", help="YAML file, or the name of a preset")
    parser.add_argument("--output", type=Path, metavar="DIR", help="the store (default for a data set: in its cache)")
    parser.add_argument("--shard", type=_shard, metavar="I/N", help="extract part I of N, from 1 (default: torchrun's)")
    parser.add_argument("--recursive", action="store_true", help="look into folders within folders")
    options = parse(parser, arguments)  # key=value may stand anywhere
    options.source, options.overrides = split_settings(options.source)
    if options.source and not options.output:
        parser.error("name the store of these images with --output DIR")

    from detector.commands.run import run

    return run("extract_proposals", lambda: _work(options), stopped="the same command goes on where it was")


def _work(options: argparse.Namespace) -> int:
    from detector.opencv import check_opencv

    check_opencv()
    from detector.commands.run import say
    from detector.config import ConfigError, load_config
    from detector.data import open_dataset
    from detector.data.ground_truth import exhaustive_part
    from detector.data.listing import list_images
    from detector.experiments.extraction import ExtractionConfig, cache_folder, extract

    config = load_config(ExtractionConfig, options.config, options.overrides)
    if bool(options.source) == bool(config.data):
        raise ConfigError("name image files or folders, or a data set as data.kind=... data.root=..., one of the two")
    not_listed: tuple[str, ...] = ()
    if config.data:
        dataset = open_dataset(config.data)
        dataset = exhaustive_part(dataset) if config.exhaustive else dataset
        images = {record.image_id: record.path for record in dataset.records}
        for warning in dataset.warnings:
            say("extract_proposals", f"warning: {warning}")
    else:
        listing = list_images(options.source, recursive=options.recursive)
        images = {
            str(path).encode(errors="backslashreplace").decode(): path for path in listing.paths
        }  # a store is UTF-8
        not_listed = listing.failures
        for line in listing.warnings:
            say("extract_proposals", line)
    rank, ranks = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    shard = options.shard or (int(rank) + 1, int(ranks))
    folder = options.output or cache_folder(images, config.proposals, Path(config.cache))
    label = f"shard {shard[0]}/{shard[1]}" if shard[1] > 1 else "proposals"
    failures = extract(images, config.proposals, folder, workers=config.workers, shard=shard, label=label)
    for line in (*not_listed, *failures):
        say("extract_proposals", line)
    if failures:
        say(
            "extract_proposals",
            f"{len(failures)} of {len(images)} images cannot be read, the others are stored; "
            "mend or remove those and run the same command again",
        )
    else:
        print(folder)
    return 1 if failures or not_listed else 0


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, not {text!r}")
    return int(number), int(count)


if __name__ == "__main__":
    sys.exit(main())
