"""Time proposal methods against each other on the photographs of a data set, and compare what they find."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

EXAMPLES = """OpenCV's selective search is in its contrib build only, which cannot stand beside this project's:
  python -m venv .venv-contrib
  .venv-contrib/bin/pip install opencv-contrib-python numba omegaconf pillow tqdm pycocotools selectivesearch
  PYTHONPATH=. .venv-contrib/bin/python tools/benchmark_proposals.py --config configs/benchmark_opencv.yaml

examples:
  python tools/benchmark_proposals.py --config configs/benchmark_package.yaml data.root=VOC2012
  python tools/benchmark_proposals.py --config configs/benchmark_opencv.yaml --json runs/opencv.json
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, measure, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML file of a benchmark, or the name of a preset")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the numbers to this file too")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file's")
    options = parser.parse_intermixed_args(arguments)

    from detector.commands.run import run

    return run("benchmark_proposals", lambda: _work(options), stopped="nothing is kept of a benchmark")


def _work(options: argparse.Namespace) -> int:
    from detector.opencv import check_opencv

    check_opencv()
    from detector.commands.run import say
    from detector.commands.targets import check_target
    from detector.config import load_config
    from detector.data import open_dataset
    from detector.data.readable import readable_part
    from detector.evaluation.benchmark import BenchmarkConfig, format_benchmark, run_benchmark, write_benchmark

    config = load_config(BenchmarkConfig, options.config, options.overrides)
    check_target(options.json, "a benchmark", [options.config])
    dataset = open_dataset(config.data)
    for warning in dataset.warnings:
        say("benchmark_proposals", f"warning: {warning}")
    chosen, unread = readable_part(replace(dataset, records=dataset.records[: config.images or None]))
    rows = run_benchmark(chosen, config)
    if options.json:
        write_benchmark(options.json, chosen, config, rows)
    print(format_benchmark(chosen, config, rows))
    for line in unread:
        say("benchmark_proposals", f"{line}; left out")
    return 1 if unread else 0


if __name__ == "__main__":
    sys.exit(main())
