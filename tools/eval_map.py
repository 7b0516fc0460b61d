"""Mean average precision by the rules of ILSVRC, PASCAL VOC or COCO, of any detector's results or of ours."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

EXAMPLES = """Detections are COCO results JSON, lines of JSON, ILSVRC's text, or a folder of VOC's comp4_det_* files.

examples:
  python tools/eval_map.py --config configs/voc_test.yaml data.root=VOC2012
  python tools/eval_map.py --config configs/ilsvrc_val2.yaml data.root=ILSVRC
  python tools/eval_map.py --protocol ilsvrc --detections submission.txt --annotations ILSVRC/Annotations/DET/val
      --image-list ILSVRC/ImageSets/DET/val.txt --blacklist ilsvrc2014 --json scores.json
  python tools/eval_map.py --protocol voc --detections results/ --annotations VOC2012/Annotations
      --image-list VOC2012/ImageSets/Main/val.txt --report report.html
  python tools/eval_map.py --protocol coco --detections mine.json --annotations instances_val2017.json
  python tools/eval_map.py --detections mine.json --compare yours.json data.kind=coco data.root=coco protocol=coco
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, detect or read, score, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", help="YAML file of an evaluation, or the name of a preset")
    parser.add_argument("--protocol", choices=("ilsvrc", "voc", "voc07", "coco"), help="whose rules (default: voc)")
    parser.add_argument("--detections", type=Path, metavar="FILE", help="score this instead of running a detector")
    parser.add_argument("--annotations", type=Path, metavar="PATH", help="ground truth: XML folder, or COCO's JSON")
    parser.add_argument(
        "--image-list", type=Path, metavar="FILE", help="images to score on: needed for XML, a part of COCO's"
    )
    parser.add_argument("--classes", metavar="A,B,...", help="class names, if the XML are not of VOC's 20")
    parser.add_argument(
        "--blacklist", metavar="FILE", help='pairs that do not count, or "ilsvrc2014" for the contest\'s'
    )
    parser.add_argument("--compare", type=Path, metavar="FILE", help="test the difference from other detections")
    parser.add_argument("--diagnose", action="store_true", help="print errors by kind and the stages that lost objects")
    parser.add_argument("--report", type=Path, metavar="F.html", help="write all of it as one page")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the numbers here too")
    parser.add_argument("--save", type=Path, metavar="OUT", help="write the detections: .json, .txt (ILSVRC) or folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file's")
    options = parser.parse_intermixed_args(arguments)  # key=value may stand anywhere
    if not options.config and not options.detections:
        parser.error("give --config to run a detector, or --detections to score a file")
    if options.annotations and not options.detections:
        parser.error("--annotations are for scoring a file: give --detections too")
    if options.annotations and not options.protocol:
        parser.error("--annotations need --protocol, which says what they are")
    if options.annotations and os.path.isdir(options.annotations) and not options.image_list:
        parser.error("give --image-list, the images that count")
    for name in ("image_list", "classes"):
        if getattr(options, name) and not options.annotations:
            parser.error(
                f"--{name.replace('_', '-')} is for --annotations; name the data by data.kind=... and its keys"
            )
    if options.annotations and any(override.startswith("data") for override in options.overrides):
        parser.error("give --annotations or data.kind=... data.root=..., not both")
    options.overrides += [f"protocol={options.protocol}"] * bool(options.protocol)
    options.overrides += [f"blacklist={json.dumps(options.blacklist)}"] * bool(options.blacklist)

    from detector.commands.run import run

    return run("eval_map", lambda: _work(options), stopped="the same command goes on where it was")


def _work(options: argparse.Namespace) -> int:
    from detector.commands.run import say
    from detector.config import ConfigError, load_config
    from detector.evaluation.reading import read_results
    from detector.evaluation.truth_files import open_truth, read_truth
    from detector.evaluation.writing import check_format, write_results
    from detector.experiments import evaluation_run as experiment
    from detector.report.text import format_report, write_report

    config = load_config(experiment.EvaluationConfig, options.config, options.overrides)
    _check_targets(options, config.folder)
    if options.annotations:
        classes = [name.strip() for name in options.classes.split(",")] if options.classes else []
        truth = open_truth(options.annotations, options.image_list, config, classes)
    elif config.data:
        truth = read_truth(config.data, config.blacklist)
    else:
        raise ConfigError("no ground truth: give --annotations, or data.kind=... data.root=...")
    if options.save:
        check_format(options.save, truth)
    _warn(truth.warnings)
    if options.detections is None:
        _warn(experiment.detector_warnings(config))
    unread: list[str] = []
    detections = options.detections
    if detections is None:
        from detector.experiments.detection_run import run_detector

        detections = run_detector(config, options.device, unread)
    table, warnings = read_results(detections, truth)
    _warn(warnings)
    other = None
    if options.compare:
        other, others_warnings = read_results(options.compare, truth)
        _warn(others_warnings)
    of_a_run = detections == config.journal  # beside it lies what its stages did
    report = experiment.analyse(
        config,
        truth,
        table,
        diagnosis=of_a_run or options.diagnose or options.report is not None,
        stages=of_a_run,
        other=other,
        other_name=str(options.compare),
        warnings=(*truth.warnings, *warnings, *unread),
    )
    if options.detections is None:
        saved = experiment.save_detections(config, truth, table)
        say("eval_map", f"wrote {saved}")
        write_report(config.folder / "report.json", report)
    if options.save:
        write_results(options.save, truth, table)
    if options.json:
        write_report(options.json, report)
    if options.report:
        from detector.report.page import write_page

        write_page(options.report, config, truth, table, report)
    print(format_report(report, diagnosis=options.diagnose))
    for line in unread:
        say("eval_map", line)
    if unread:
        say("eval_map", f"{len(unread)} images could not be read; in these numbers they have no detections")
    return 1 if unread else 0


def _check_targets(options: argparse.Namespace, folder: Path) -> None:
    """Refuse, before hours of work, what may not be written."""
    from detector.commands.targets import TargetError, check_apart, check_target

    inputs = (options.detections, options.compare, options.annotations, options.image_list, options.config)
    check_apart((options.json, options.report, options.save))
    for path, kind in ((options.json, "a report"), (options.report, "a page")):
        check_target(path, kind, inputs)
    if options.save is not None and options.save.suffix:
        check_target(options.save, "detections", inputs)
    elif options.save is not None and any(path and path.absolute() == options.save.absolute() for path in inputs[:3]):
        raise TargetError(f"{options.save}: would replace what this command reads; name another folder")
    if options.detections is None and (folder / "config.yaml").exists() and not (folder / "detections.jsonl").exists():
        raise TargetError(f"{folder} holds a run of another command; name=OTHER starts one of its own")


def _warn(lines: tuple[str, ...]) -> None:
    from detector.commands.run import say

    for line in lines:
        say("eval_map", f"warning: {line}")


if __name__ == "__main__":
    sys.exit(main())
