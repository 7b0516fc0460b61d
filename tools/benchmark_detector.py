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
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="+", type=Path, help="image files and folders")
    names = ["fast", "default", "straightforward"]
    parser.add_argument("--detectors", nargs="+", default=names, help=f"presets or files (default: {' '.join(names)})")
    parser.add_argument("--repetitions", type=int, default=3, help="timed rounds (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.repetitions < 1:
        parser.error("repetitions count from 1")

    try:
        from detector.data.image import find_images

        paths = find_images(options.source, recursive=False)

        from detector.detector_benchmark import format_timings, time_detectors

        print(format_timings(time_detectors(options.detectors, paths, options.repetitions)))
    except (ImportError, OSError, ValueError) as error:  # errors for the user are one line each
        print(f"benchmark_detector: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmark_detector: stopped, nothing is kept of a benchmark", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
