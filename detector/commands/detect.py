"""Find objects in images: print what is where, write annotated images and JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detector.commands.arguments import add_config, add_device, command_parser, start

EXAMPLES = """
detect image.jpg
detect photos/ more/*.png --output results
detect image.jpg --config fast
detect image.jpg suppression.min_score=0.3 proposals.max_boxes=500
detect image.jpg models=[runs/mine/best.safetensors]
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("detect", __doc__, EXAMPLES)
    add_config(result, "detector.settings:DetectorConfig", "default", files="image files and folders")
    result.add_argument("--output", type=Path, default=Path("detections"), metavar="DIR", help="(default: %(default)s)")
    add_device(result)
    result.add_argument("--recursive", action="store_true", help="search folders within folders too")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Detect, print and write; return the exit code."""
    return start(parser(), arguments, _work, check=_check, stopped="the images printed above are done")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not options.source:
        parser.error("name at least one image or folder")


def _work(options: argparse.Namespace) -> int:
    from detector.commands.opencv import check_opencv

    check_opencv()
    from detector.commands.compiling_aside import compiling_aside, rehearse
    from detector.commands.run import say
    from detector.config import load_config
    from detector.data.image import ImageError
    from detector.data.listing import list_images
    from detector.settings import DetectorConfig

    config = load_config(DetectorConfig, options.config, options.overrides)
    listing = list_images(options.source, recursive=options.recursive)

    with compiling_aside(config.proposals) as aside:
        # torch is imported here, after all that can be rejected at once
        from detector.commands.results import check_results, detect_files, is_result
        from detector.device import keep_freed_memory
        from detector.pipeline import Detector

        named = set(map(Path, options.source))
        paths = [path for path in listing.paths if path in named or not is_result(path)]
        if not paths:
            raise ImageError("all images here are results of an earlier detect")
        check_results(options.output, paths)  # before seconds are spent on weights
        for line in (*listing.warnings, *listing.failures):
            say("detect", line)
        if len(paths) < len(listing.paths):
            say("detect", f"{len(listing.paths) - len(paths)} results of an earlier detect are left out")
        keep_freed_memory()
        detector = Detector.load(config, device=options.device)
        if aside:
            rehearse(detector)
        failed = detect_files(detector, paths, options.output)
    return 1 if failed or listing.failures else 0
