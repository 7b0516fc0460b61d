"""Find objects in images: print what is where, write annotated images, JSON and labels."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from detector.commands.arguments import add_config, add_device, at_least, command_parser, split_settings, start

if TYPE_CHECKING:
    from detector.commands.sources import Source
    from detector.data.video import Every

OUTPUT = Path("detections")
FORMATS = ("json", "coco", "voc", "yolo", "labelme", "csv", "ilsvrc")
EXAMPLES = """
detect image.jpg
detect photos/ more/*.png --output results --score 0.3
detect photos/ --recursive --resume --format json,voc,coco
detect clip.mp4 --every 0.5s --classes person "dining table"
detect @list.txt --no-images --crops
detect - --json - < paths.txt > found.jsonl
detect image.jpg --trace page.html --annotations VOC2007/Annotations
detect image.jpg --config fast proposals.max_boxes=500
detect image.jpg models=[runs/mine/best.safetensors]
"""
NOTES = """\
A source is a file, a folder, a quoted glob ('photos/**/*.jpg'), a video, @FILE
(a list of paths, one a line, which begin at the list's folder), or - for paths
on standard input. Only what detect wrote, and nobody changed, is replaced.

Exit codes: 0 done, 1 something could not be done, 2 wrong usage, 130 stopped.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("detect", __doc__, EXAMPLES, NOTES.rstrip() + "\n")
    add_config(result, "detector.settings:DetectorConfig", "default", files="image files, folders and videos")
    add_device(result)
    what = result.add_argument_group("what is looked at")
    what.add_argument("--recursive", action="store_true", help="search folders within folders too")
    what.add_argument(
        "--every",
        type=_every,
        metavar="1s|25",
        help="time or number of frames from one frame to the next (default: 1s)",
    )
    shown = result.add_argument_group("what is shown")
    shown.add_argument("--classes", nargs="+", metavar="NAME", help="classes to show (default: all)")
    shown.add_argument(
        "--score", type=_share, metavar="S", help="lowest score of a detection (default: each class's operating point)"
    )
    shown.add_argument(
        "--max-detections", type=at_least(1), metavar="N", help="most detections an image, the best ones"
    )
    written = result.add_argument_group("what is written")
    written.add_argument("--output", type=Path, metavar="DIR", help=f"folder of the results (default: {OUTPUT})")
    written.add_argument(
        "--format", type=_formats, metavar="F,...", help=f"{', '.join(FORMATS)}, or several of them (default: json)"
    )
    written.add_argument("--no-images", action="store_true", help="write no annotated images")
    written.add_argument("--crops", action="store_true", help="cut out each detection, in a folder for each class")
    written.add_argument("--confidence", action="store_true", help="write scores to yolo, voc and labelme too")
    written.add_argument("--trace", type=Path, metavar="F.html", help="write a page that shows each stage of one image")
    written.add_argument(
        "--annotations", type=Path, metavar="PATH", help="ground truth with the image of --trace, in any layout"
    )
    written.add_argument(
        "--json",
        choices=("-",),
        metavar="-",
        help="print a line of JSON for each image; tables go to standard error, files only to a named --output",
    )
    run = result.add_argument_group("how it runs")
    run.add_argument("--resume", action="store_true", help="skip images that were done with this model and settings")
    run.add_argument("--on-error", choices=("skip", "stop"), default="skip", help="(default: %(default)s)")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Detect, print and write; return the exit code."""
    stopped = "what was printed is done; --resume goes on from there"
    return start(
        *(parser(), arguments, _work), check=_check, stopped=stopped, printed_only=lambda options: bool(options.json)
    )


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.classes:
        options.classes, settings = split_settings(options.classes)
        options.overrides += settings
    if not options.source:
        parser.error("name at least one image, folder or video")
    if options.source.count("-") > 1:
        parser.error("standard input can be read once; write - once")
    options.files = not options.json or bool(options.output or options.format or options.crops)
    options.formats = options.format or ("json",)
    if options.resume and not (options.files and "json" in options.formats):
        parser.error(
            "--resume reads what is done from its JSON files; add json to --format, or --output DIR to --json -"
        )
    if options.annotations and not options.trace:
        parser.error("--annotations is for the page of --trace; name that too, or score a data set by eval_map")
    if options.confidence and not {"yolo", "voc", "labelme"} & {*options.formats}:
        parser.error("--confidence is for labels; name one of yolo, voc and labelme as --format")
    if options.score is not None:
        options.overrides.append(f"suppression.min_score={options.score}")
    if options.max_detections is not None:
        options.overrides.append(f"suppression.limit={options.max_detections}")


def _work(options: argparse.Namespace) -> int:
    from detector.commands.opencv import check_opencv

    check_opencv()
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # it prints its own lines of a damaged video
    from detector.commands.compiling_aside import compiling_aside, rehearse
    from detector.commands.run import say, warn
    from detector.commands.sources import collect
    from detector.config import load_config
    from detector.data.image import ImageError
    from detector.data.video import is_video
    from detector.settings import DetectorConfig

    config = load_config(DetectorConfig, options.config, options.overrides)
    collected = collect(options.source, recursive=options.recursive)
    if not len(collected) and not collected.piped and not collected.failures:
        raise ImageError("all images here are results of an earlier detect")
    if collected.failures and (options.on_error == "stop" or not (len(collected) or collected.piped)):
        raise ImageError("\n".join(collected.failures))
    if options.trace:
        _check_trace(options.trace, [*collected.before, *collected.after], collected.piped)
    truth = None
    if options.annotations:
        from detector.commands.tracing import truth_with

        truth = truth_with(options.annotations, collected.before[0].path)
    with compiling_aside(config.proposals) as aside, ThreadPoolExecutor(1) as other:
        # torch is imported here, after all that can be rejected at once
        from detector.commands.detecting import Manner, Run
        from detector.commands.outputs import Outputs, Wanted
        from detector.commands.result_names import Names
        from detector.commands.results import UnknownClass, item_of, only_classes, settings_digest
        from detector.commands.run_files import check_ilsvrc
        from detector.data.video import Every
        from detector.device import keep_freed_memory
        from detector.pipeline import Detector

        planned = [*collected.before, *collected.after]
        images = [one for one in planned if not is_video(one.path)]
        names = Names(one.relative for one in images)
        outputs = None
        if options.files:
            wanted = Wanted(options.formats, not options.no_images, options.crops, options.confidence)
            outputs = Outputs(options.output or OUTPUT, wanted, (os.path.realpath(one.path) for one in planned))
            for number, image in enumerate(images, 1):  # before seconds are spent on weights
                outputs.check(item_of(image, names, number))
        for line in (*collected.remarks(), *collected.failures):
            say("detect", line)
        keep_freed_memory()
        detector = Detector.load(config, device=options.device)
        if options.classes:
            try:
                only_classes(detector, options.classes)
            except UnknownClass as error:
                say("detect", str(error))
                return 2
        if "ilsvrc" in options.formats:
            warn("detect", check_ilsvrc(detector.classes))
        if aside:
            rehearse(detector)
        manner = Manner(
            options.every or Every(seconds=1), bool(options.json), options.resume, options.on_error == "stop"
        )
        digest = other.submit(settings_digest, detector)  # half a second, which the first image does not wait for
        run = Run(detector, outputs, names, manner, digest.result)
        if collected.piped and sys.stdin and sys.stdin.isatty():
            say("detect", "reading paths from the terminal, one a line; Ctrl-D ends")
        known = len(images) == len(planned) and not collected.piped
        run(collected.batches(options.recursive), len(images) if known else None)
        if options.trace and not run.failures:
            from detector.commands.tracing import write_trace

            write_trace(options.trace, detector, images[0].path, truth)
    return 1 if run.failures or collected.failures else 0


def _check_trace(page: Path, sources: Sequence[Source], piped: bool) -> None:
    """Reject what no page can be made of, before seconds are spent on weights."""
    from detector.commands.targets import TargetError, check_target
    from detector.data.video import is_video

    if piped or len(sources) != 1 or is_video(sources[0].path):
        raise TargetError("--trace is for one image; name one image file")
    check_target(page, "a trace", [sources[0].path])


def _every(text: str) -> Every:
    from detector.data.video import Every

    try:
        return Every.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _share(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, not {text!r}")
    return score


def _formats(text: str) -> tuple[str, ...]:
    names = [name.strip().lower() for name in text.split(",")]
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        close = difflib.get_close_matches(unknown[0], FORMATS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise argparse.ArgumentTypeError(f"no format {unknown[0]!r}{hint} There are {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(names))
