"""Time our evaluators beside pycocotools and hotcoco on a made-up data set."""

from __future__ import annotations

import argparse
import sys

EXAMPLES = """examples:
  python tools/benchmark_evaluation.py --repetitions 5
  python tools/benchmark_evaluation.py --images 1000 --detections 100000 --repetitions 5
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, measure, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=_positive, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--detections", type=_positive, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument(
        "--repetitions", type=_positive, default=3, help="of all but pycocotools (default: %(default)s)"
    )
    parser.add_argument("--no-peers", action="store_true", help="leave pycocotools and hotcoco out")
    options = parser.parse_args(arguments)

    from detector.commands.run import run

    return run(
        "benchmark_evaluation", lambda: _work(options), stopped="nothing is kept of a benchmark", printed_only=True
    )


def _work(options: argparse.Namespace) -> None:
    from detector.evaluation.scoring_benchmark import format_scoring, run_scoring_benchmark

    rows = run_scoring_benchmark(options.images, options.detections, options.repetitions, peers=not options.no_peers)
    print(format_scoring(options.images, options.detections, rows))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
