"""Find objects in photographs: print what is where, write annotated images and JSON."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EXAMPLES = """examples:
  python tools/detect.py image.jpg
  python tools/detect.py photos/ more/*.png --output results
  python tools/detect.py image.jpg suppression.min_score=0.3 proposals.max_boxes=500
  python tools/detect.py image.jpg models=[runs/mine/best.safetensors]
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, detect, print; returns the exit status."""
    from detector.commands.arguments import parse, split_settings

    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="+", help="image files and folders, and settings as key=value")
    parser.add_argument("--config", default="default", help="YAML file or preset (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("detections"), metavar="DIR", help="(default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    parser.add_argument("--recursive", action="store_true", help="look into folders within folders")
    options = parse(parser, arguments)  # key=value may stand anywhere
    options.source, options.overrides = split_settings(options.source)
    if not options.source:
        parser.error("name at least one image or folder")

    from detector.commands.run import run

    return run("detect", lambda: _work(options), stopped="the images printed above are done")


def _work(options: argparse.Namespace) -> int:
    from detector.opencv import check_opencv

    check_opencv()
    from detector.commands.run import say
    from detector.config import load_config
    from detector.data.image import ImageError
    from detector.data.listing import list_images
    from detector.settings import DetectorConfig

    config = load_config(DetectorConfig, options.config, options.overrides)
    listing = list_images(options.source, recursive=options.recursive)

    from detector.device import keep_freed_memory  # torch is imported here, after all that can be refused at once
    from detector.output import check_results, detect_files, is_result, result_names
    from detector.pipeline import Detector

    named = set(map(Path, options.source))
    paths = [path for path in listing.paths if path in named or not is_result(path)]
    if not paths:
        raise ImageError("all images here are results of an earlier detect")
    check_results(options.output, result_names(paths), paths)  # before seconds are spent on weights
    for line in (*listing.warnings, *listing.failures):
        say("detect", line)
    if len(paths) < len(listing.paths):
        say("detect", f"{len(listing.paths) - len(paths)} results of an earlier detect passed over")
    keep_freed_memory()
    failed = detect_files(Detector.load(config, device=options.device), paths, options.output)
    return 1 if failed or listing.failures else 0


if __name__ == "__main__":
    sys.exit(main())
