"""Look at your own data set: say what it is, check it, and write a config that trains on it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detector.commands.arguments import add_device, at_least, command_parser, start

if TYPE_CHECKING:
    from detector.doctor.checkup import Checkup

NOTES = """DATA is a folder in the layout of PASCAL VOC, COCO, YOLO, labelme or ILSVRC, or
a folder of images for each class. It is never changed. The exit code is 1 if an
error is found; with --strict, or a warning."""
EXAMPLES = """
new_config cells
new_config cells --minutes 20 --val-share 0.3 --output small.yaml
new_config cells --check
new_config cells --check --strict --json -
new_config --check --config cells.yaml
new_config cells --check --model runs/cells/best.safetensors
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("new_config", __doc__, EXAMPLES, NOTES)
    add = result.add_argument
    add("data", nargs="?", type=Path, metavar="DATA", help="folder of the data set")
    add("--check", action="store_true", help="only report; write no config")
    add("--config", metavar="FILE", help="with --check: look at train and val of this config instead of DATA")
    add("--output", type=Path, metavar="FILE.yaml", help="the config (default: NAME.yaml here, after DATA)")
    add("--minutes", type=_minutes, default=45.0, help="budget of the training (default: %(default)g)")
    add("--val-share", type=_share, default=0.2, help="share of val where there is none (default: %(default)g)")
    add("--seed", type=at_least(0), default=0, help="seed of the split and of samples (default: %(default)s)")
    add("--model", default="", metavar="NAME", help="preset or weights that look for unlabelled objects")
    add("--json", metavar="FILE", help='write the report as JSON; "-" prints it instead of the text')
    add("--strict", action="store_true", help="exit with 1 for warnings too")
    add_device(result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Look, report and write; return the exit code."""
    return start(parser(), arguments, _work, check=_check, stopped="nothing was written")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if (options.data is None) == (options.config is None):
        parser.error("give DATA, the folder of a data set" + " or --config, not both" * (options.data is not None))
    if options.config and not options.check:
        parser.error("--config is for --check; without it a config is written")
    if options.check and options.output:
        parser.error("--check writes no config; leave --output out")
    if options.output and options.output.suffix not in (".yaml", ".yml"):
        parser.error(f"--output names a .yaml file, not {options.output}")


def _work(options: argparse.Namespace) -> int:
    from detector.commands.run import DONE, FAILED
    from detector.commands.targets import check_target
    from detector.doctor.findings import Level
    from detector.doctor.page import format_counts, format_findings

    target = Path(options.json) if options.json not in (None, "-") else None
    check_target(target, "a checkup", [options.config])
    from detector.drafts import draft

    names = ("minutes", "val_share", "seed", "model", "output", "device")
    wishes = draft.Wishes(**{name: getattr(options, name) for name in names})
    if options.config:
        found = draft.examine_config(options.config, wishes)
    elif options.check:
        found = draft.examine_folder(options.data, wishes)
    else:
        found = draft.new_config(options.data, wishes)
    checkup = found.checkup
    _write_json(options.json, target, checkup, found.about)
    if options.json != "-":
        levels = tuple(Level) if options.check else (Level.error, Level.warning)
        print(*found.says, "", *format_counts(checkup), "", *format_findings(checkup.findings, levels), sep="\n")
        print(*found.outcome, sep="\n", end="\n" if found.outcome else "")
    wrong = checkup.has(Level.error) or (options.strict and checkup.has(Level.warning))
    return FAILED if wrong else DONE


def _write_json(where: str | None, target: Path | None, checkup: Checkup, about: dict[str, object]) -> None:
    from detector.doctor.page import as_json
    from proposals.files import write_whole

    if where == "-":
        print(as_json(checkup, about))
    elif target is not None:
        with write_whole(target) as path:
            path.write_text(as_json(checkup, about) + "\n", encoding="utf-8")


def _minutes(text: str) -> float:
    return _number(text, 1.0, 100_000.0, "minutes from 1 on")


def _share(text: str) -> float:
    return _number(text, 0.01, 0.9, "a share from 0.01 to 0.9")


def _number(text: str, low: float, high: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"expected {what}, not {text!r}")
    return value
