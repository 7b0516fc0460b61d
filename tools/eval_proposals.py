"""Count the objects of a data set that proposals cover, and the boxes it takes (paper §8)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EXAMPLES = """examples:
  python tools/eval_proposals.py --config configs/proposals_voc.yaml data.root=VOC2012
  python tools/eval_proposals.py --config proposals_voc workers=4 --json runs/proposals.json --plot runs/proposals.png
  python tools/eval_proposals.py --config proposals_voc stores.mine=runs/my_boxes
  python tools/eval_proposals.py --config proposals_voc data.kind=coco data.root=COCO data.split=val2017
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, measure, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML file of a comparison, or the name of a preset")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the numbers to this file too")
    parser.add_argument("--plot", type=Path, metavar="OUT", help="draw the curves: a .png, .svg or .pdf file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file's")
    options = parser.parse_intermixed_args(arguments)

    if options.plot and options.plot.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"--plot draws a .png, .svg or .pdf file, not {options.plot}")

    from detector.commands.run import run

    return run(
        "eval_proposals", lambda: _work(options), stopped="what was computed is cached, the same command goes on"
    )


def _work(options: argparse.Namespace) -> int:
    from detector.commands.run import say
    from detector.commands.targets import check_apart, check_target
    from detector.config import load_config
    from detector.data import open_dataset
    from detector.experiments.coverage import (
        CoverageConfig,
        format_coverage,
        measure_coverage,
        plot_coverage,
        write_coverage,
    )

    config = load_config(CoverageConfig, options.config, options.overrides)
    check_apart((options.json, options.plot))
    check_target(options.json, "proposal coverage", [options.config])
    check_target(options.plot, "curves")
    dataset = open_dataset(config.data)
    for warning in dataset.warnings:
        say("eval_proposals", f"warning: {warning}")
    unread: list[str] = []
    rows = measure_coverage(dataset, config, unread)
    if options.json:
        write_coverage(options.json, dataset, config, rows)
    if options.plot:
        plot_coverage(options.plot, dataset, rows)
    print(format_coverage(dataset, rows))
    for line in unread:
        say("eval_proposals", line)
    if unread:
        say("eval_proposals", f"{len(unread)} images could not be read; in these numbers nothing covers their objects")
    return 1 if unread else 0


if __name__ == "__main__":
    sys.exit(main())
