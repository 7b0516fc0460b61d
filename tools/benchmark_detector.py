"""Time whole detectors stage by stage beside a straightforward R-CNN, on your photographs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EXAMPLES = """examples:
  python tools/benchmark_detector.py examples
  python tools/benchmark_detector.py photo.jpg --detectors default mine.yaml --repetitions 5
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, measure, print; returns the exit status."""
    from detector.commands.arguments import parse

    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="+", type=Path, help="image files and folders")
    names = ["fast", "default", "straightforward"]
    parser.add_argument("--detectors", nargs="+", default=names, help=f"presets or files (default: {' '.join(names)})")
    parser.add_argument("--repetitions", type=int, default=3, help="timed rounds (default: %(default)s)")
    options = parse(parser, arguments)
    if options.repetitions < 1:
        parser.error("repetitions count from 1")

    from detector.commands.run import run

    return run(
        "benchmark_detector", lambda: _work(options), stopped="nothing is kept of a benchmark", printed_only=True
    )


def _work(options: argparse.Namespace) -> int:
    from detector.opencv import check_opencv

    check_opencv()
    from detector.commands.run import say
    from detector.data.image import ImageError, list_images, read_image
    from detector.detector_benchmark import format_timings, time_detectors

    listing = list_images(options.source)
    failures, paths = list(listing.failures), []
    for path in listing.paths:
        try:
            read_image(path)
            paths.append(path)
        except ImageError as error:
            failures.append(str(error))
    for line in (*listing.warnings, *failures):
        say("benchmark_detector", line)
    if not paths:
        raise ImageError("no image can be read")
    print(format_timings(time_detectors(options.detectors, paths, options.repetitions)))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
