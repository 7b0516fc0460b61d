"""Measure mean average precision by the rules of ILSVRC, PASCAL VOC or COCO, of any detector."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detector.commands.arguments import add_config, add_device, command_parser, start

if TYPE_CHECKING:
    from detector.evaluation.results import DetectionTable
    from detector.evaluation.truth import Truth
    from detector.experiments.evaluation_run import EvaluationConfig

NOTES = """Without --config and --detections it evaluates on ILSVRC detection's val2, in data/ILSVRC: the model of
train_classifier where there is one, else the shipped detector on the 19 classes that it shares with ILSVRC's 200.
Ground truth and detections may each be COCO's or labelme's JSON, CSV, ILSVRC's or VOC's files, or folders of text with
one file an image, as YOLO's tools and other mAP scripts use them; the layout of boxes is found by looking."""
EXAMPLES = """
eval_map
eval_map data.root=DIR
eval_map --config voc_test data.root=VOC2012 data.split=val
eval_map --protocol ilsvrc --detections submission.txt --annotations ILSVRC/Annotations/DET/val
    --image-list ILSVRC/ImageSets/DET/val.txt --blacklist ilsvrc2014 --json scores.json
eval_map --protocol voc --detections results/ --annotations VOC2012/Annotations
    --image-list VOC2012/ImageSets/Main/val.txt --report report.html
eval_map --protocol coco --detections mine.json --annotations instances_val2017.json
eval_map --detections mine.json --compare yours.json data.kind=coco data.root=coco protocol=coco
eval_map --protocol all --detections mine.json --annotations instances_val2017.json
eval_map --detections mine.json --annotations instances.json --protocol voc --diagnose --csv tables
    threshold_precision=0.9
"""
PROTOCOLS = ("ilsvrc", "voc", "voc07", "coco")
ALL = "all"
BARE = "ilsvrc_val2"
TRAINED = "runs/ilsvrc_regions"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("eval_map", __doc__, EXAMPLES, NOTES)
    add_config(result, "detector.experiments.evaluation_run:EvaluationConfig", None)
    add = result.add_argument
    add("--protocol", choices=(*PROTOCOLS, ALL), help="rules of the score (default: voc); all: side by side")
    add("--detections", type=Path, metavar="FILE", help="score this instead of running a detector")
    add("--annotations", type=Path, metavar="PATH", help="ground truth: a folder or file of any format")
    add("--image-list", type=Path, metavar="FILE", help="images to score on (default: all)")
    for name in ("boxes", "truth-boxes"):
        whose = "detections'" if name == "boxes" else "ground truth's"
        add(f"--{name}", metavar="LAYOUT", default="", help=f"{whose} boxes in text: xyxy, xywh or cxcywh[,relative]")
    add("--classes", metavar="A,B,...", help="class names, if the files name none or others")
    add("--blacklist", metavar="FILE", help='pairs that do not count, or "ilsvrc2014" for the contest\'s')
    add("--compare", type=Path, action="append", metavar="FILE", help="other detections to compare; may be repeated")
    add("--slices", type=Path, metavar="FILE.csv", help="columns of images (light: day, night) to score apart")
    add("--diagnose", action="store_true", help="print errors, thresholds, confusions, sizes, calibration, labels")
    add("--report", type=Path, metavar="F.html", help="write all of it as one page, with the pictures behind it")
    add("--csv", type=Path, metavar="FOLDER", help="write all of it as tables")
    add("--json", type=Path, metavar="OUT", help="write the numbers here too")
    add("--save", type=Path, metavar="OUT", help="write the detections: .json, .txt (ILSVRC) or folder")
    add_device(result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Detect or read detections, score, print and write; return the exit code."""
    return start(parser(), arguments, _work, check=_check, stopped="the same command resumes the run")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    other = options.protocol or any(text.startswith(("data.kind", "data=", "protocol")) for text in options.overrides)
    if other and not options.config and not options.detections and not options.annotations:
        parser.error("give --config to run a detector on other data than ILSVRC's, or --detections to score a file")
    if options.annotations and not options.detections:
        parser.error("--annotations are for scoring a file: give --detections too")
    if options.boxes and not options.detections:
        parser.error("--boxes is for the files of --detections")
    files = [os.path.realpath(path) for path in (options.detections, *(options.compare or ())) if path]
    if len(set(files)) < len(files):
        parser.error("--compare names a file twice, or the detections that are scored; name others")
    for name in ("image_list", "classes", "truth_boxes"):
        if getattr(options, name) and not options.annotations:
            shown = name.replace("_", "-")
            parser.error(f"--{shown} is for --annotations; name the data by data.kind=... and its keys")
    if options.annotations and any(override.startswith("data") for override in options.overrides):
        parser.error("give --annotations or data.kind=... data.root=..., not both")
    if options.protocol == ALL:
        if not options.detections:
            parser.error("--protocol all scores a file: give --detections")
        for name in ("compare", "slices", "diagnose", "report", "csv"):
            if getattr(options, name):
                parser.error(f"--{name} needs one protocol: {', '.join(PROTOCOLS)}")
    else:
        options.overrides += [f"protocol={options.protocol}"] * bool(options.protocol)
    options.overrides += [f"blacklist={json.dumps(options.blacklist)}"] * bool(options.blacklist)


def _work(options: argparse.Namespace) -> int:
    from detector.commands.needs import check_needs
    from detector.commands.run import say, say_unread, warn
    from detector.config import ConfigError, load_config
    from detector.data.dataset import resolved_sources
    from detector.evaluation.names import labels_of_groups
    from detector.evaluation.reading import read_results
    from detector.evaluation.truth_files import read_truth
    from detector.evaluation.truth_paths import open_truth
    from detector.evaluation.writing import check_format, write_results
    from detector.experiments import evaluation_run as experiment
    from detector.report.plain import write_report
    from detector.report.text import format_report
    from detector.terminal import table_width

    is_bare = not options.config and not options.detections
    if is_bare:
        options.config, options.overrides = BARE, [*_trained(), *options.overrides]
    config = load_config(experiment.EvaluationConfig, options.config, options.overrides)
    if config.data and not options.annotations:
        config = replace(config, data=resolved_sources(config.data))
    if config.data and not options.detections:
        check_needs("eval_map", {"data": config.data})
    if is_bare:
        _say_models(config)
    _check_targets(options, config.folder)
    if options.annotations:
        classes = [name.strip() for name in options.classes.split(",")] if options.classes else []
        truth = open_truth(options.annotations, options.image_list, config, classes, options.truth_boxes)
    elif config.data:
        truth = read_truth(config.data, config.blacklist)
    else:
        raise ConfigError("no ground truth: give --annotations, or data.kind=... data.root=...")
    labels_of_groups(config.groups, truth)  # rejects unknown classes before anything is detected
    if options.save:
        check_format(options.save, truth)
    warn("eval_map", truth.warnings)
    unread: list[str] = []
    detections, runs_detector = options.detections, options.detections is None
    if runs_detector:
        from detector.commands.compiling_aside import compiling_aside

        warn("eval_map", experiment.detector_warnings(config))
        with compiling_aside(config.detector.proposals):
            from detector.experiments.detection_run import run_detector, save_points

            run = run_detector(config, options.device, unread)
            detections = run.journal
    table, warnings = read_results(detections, truth, options.boxes)
    warn("eval_map", warnings)
    if runs_detector:
        say("eval_map", f"wrote {experiment.save_detections(config, truth, table)}")
    if options.save:
        write_results(options.save, truth, table)
    if runs_detector and not len(truth.labels):
        say("eval_map", f"{truth.name} has no annotated objects, so there is nothing to score")
        return say_unread("eval_map", unread, "they have no detections")
    if options.protocol == ALL:
        from detector.evaluation.all_protocols import evaluate_all, format_protocols
        from detector.report.plain import write_protocols

        protocols = evaluate_all(truth, table, min_iou=config.min_iou)
        if options.json:
            write_protocols(options.json, protocols)
        print(format_protocols(protocols, width=table_width()))
        return 0
    others = _read_others(options, truth, table)
    columns = None
    if options.slices:
        from detector.analysis.slices import read_slices

        columns = read_slices(options.slices, truth)
    of_a_run = detections == config.journal
    report = experiment.analyse(
        config,
        truth,
        table,
        details=of_a_run or options.diagnose or options.report is not None or options.csv is not None,
        stages=of_a_run,
        others=others,
        columns=columns,
        warnings=(*truth.warnings, *warnings, *unread),
    )
    if runs_detector:
        write_report(config.folder / "report.json", truth, report)
        points = save_points(config, truth, table, run)
        if points:
            say("eval_map", f"wrote {points}")
    if options.json:
        write_report(options.json, truth, report)
    if options.csv:
        from detector.report.tables import write_tables

        write_tables(options.csv, truth, report)
    if options.report:
        from detector.report.page import write_page

        write_page(options.report, config, truth, table, report, columns=columns, others=others)
    print(format_report(report, diagnosis=options.diagnose, width=table_width()))
    return say_unread("eval_map", unread, "in these numbers they have no detections")


def _read_others(options: argparse.Namespace, truth: Truth, table: DetectionTable) -> dict[str, DetectionTable] | None:
    """Read the detections to compare; return them behind those that are scored, by name, or None for none."""
    from detector.commands.run import warn
    from detector.evaluation.reading import read_results

    if not options.compare:
        return None
    paths: list[Path] = [options.detections or Path("this run"), *options.compare]
    names = [path.name if [one.name for one in paths].count(path.name) == 1 else str(path) for path in paths]
    result = {names[0]: table}
    for name, path in zip(names[1:], options.compare, strict=True):
        result[name], warnings = read_results(path, truth, options.boxes)
        warn("eval_map", warnings)
    return result


def _check_targets(options: argparse.Namespace, folder: Path) -> None:
    """Reject, before hours of work, what may not be written."""
    from detector.commands.targets import TABLES, TargetError, check_apart, check_target

    read = (options.detections, options.annotations, *(options.compare or ()))
    inputs = (*read, options.slices, options.image_list, options.config)
    check_apart((options.json, options.report, options.save, options.csv))
    for path, kind in ((options.json, "a report"), (options.report, "a page")):
        check_target(path, kind, inputs)
    if options.save is not None and options.save.suffix:
        check_target(options.save, "detections", inputs)
    elif options.save is not None and any(path and path.absolute() == options.save.absolute() for path in read):
        raise TargetError(f"{options.save}: would replace what this command reads; name another folder")
    if options.csv is not None:
        if options.csv.is_file():
            raise TargetError(f"{options.csv}: a file; the tables are written into a folder")
        for name in TABLES:
            check_target(options.csv / f"{name}.csv", "a CSV table", inputs)
    if options.detections is None and (folder / "config.yaml").exists() and not (folder / "detections.jsonl").exists():
        raise TargetError(f"{folder} holds a run of another command; name=OTHER starts one of its own")


def _trained() -> list[str]:
    """Return the settings of a detector with the models that train_classifier made for ILSVRC, and their proposals."""
    import yaml  # type: ignore[import-untyped]

    runs = [Path(TRAINED)] if Path(TRAINED).is_dir() else sorted(Path().glob(f"{TRAINED}-[0-9]"))
    runs = [run for run in runs if (run / "best.safetensors").is_file() and (run / "config.yaml").is_file()]
    if not runs:
        return []
    run = yaml.safe_load((runs[0] / "config.yaml").read_text(encoding="utf-8"))
    models = [str(run / "best.safetensors") for run in runs]
    moves = bool(run["regression_windows"])
    return [
        f"name={BARE}_trained",
        f"detector.models={json.dumps(models)}",
        f"detector.proposals={json.dumps(run['proposals'])}",
        f"detector.regression={json.dumps(moves)}",
        "detector.cascade={threshold: 0, best: 0, mirror: false, second_pass: false}",
        "detector.suppression.soft_sigma=0",
    ]


def _say_models(config: EvaluationConfig) -> None:
    from detector.commands.run import say
    from detector.invocation import command

    say("eval_map", f"detector.models=[{','.join(config.detector.models)}]")
    if not any(name.startswith(TRAINED) for name in config.detector.models):
        say("eval_map", f"these know PASCAL VOC's 20 classes; to train for ILSVRC's 200: {command('train_classifier')}")
