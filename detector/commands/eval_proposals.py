"""Measure how many objects of a data set proposals cover, with how many boxes (paper §8)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from detector.commands.arguments import add_config, command_parser, start

EXAMPLES = """
eval_proposals data.root=VOC2012
eval_proposals --config proposals_voc workers=4 --json runs/proposals.json --report runs/proposals.html
eval_proposals stores.mine=runs/my_boxes 'unseen=[cat,dog]' --plot runs/proposals.png
eval_proposals data.root=VOC2007 data.split=test500 references=[voc07_test500]
eval_proposals data.kind=coco data.root=COCO data.split=val2017
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("eval_proposals", __doc__, EXAMPLES)
    add_config(result, "detector.experiments.coverage:CoverageConfig", "proposals_voc")
    result.add_argument("--json", type=Path, metavar="OUT", help="write the numbers to this file too")
    result.add_argument("--report", type=Path, metavar="F.html", help="write all of it as one page, with pictures")
    result.add_argument("--plot", type=Path, metavar="OUT", help="draw the curves: a .png, .svg or .pdf file")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit code."""
    stopped = "what was computed is cached, the same command resumes"
    return start(parser(), arguments, _work, check=_check, stopped=stopped)


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.plot and options.plot.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"--plot draws a .png, .svg or .pdf file, not {options.plot}")


def _work(options: argparse.Namespace) -> int:
    from detector.commands.run import say_unread, warn
    from detector.commands.targets import check_apart, check_target
    from detector.config import load_config
    from detector.data import open_dataset
    from detector.data.dataset import resolved_sources
    from detector.experiments.coverage import CoverageConfig, measure_coverage
    from detector.report.coverage_text import format_coverage, write_coverage
    from detector.terminal import table_width

    config = load_config(CoverageConfig, options.config, options.overrides)
    inputs = [options.config, *config.references, *config.reports.values()]
    check_apart((options.json, options.report, options.plot))
    check_target(options.json, "proposal coverage", inputs)
    check_target(options.report, "a page of proposals", inputs)
    check_target(options.plot, "curves", inputs)
    config = replace(config, data=resolved_sources(config.data))
    dataset = open_dataset(config.data)
    warn("eval_proposals", dataset.warnings)
    unread: list[str] = []
    bench = measure_coverage(dataset, config, unread)
    if options.json:
        write_coverage(options.json, bench, config)
    if options.plot:
        from detector.report.coverage_plots import plot_coverage

        plot_coverage(options.plot, bench)
    if options.report:
        from detector.report.coverage_page import write_coverage_page

        write_coverage_page(options.report, bench, config)
    print(format_coverage(bench, table_width()))
    return say_unread("eval_proposals", unread, "in these numbers nothing covers their objects")
