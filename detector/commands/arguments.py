"""What the command lines share: help that ends with commands to paste, settings, devices, and the way into the frame.

A command line is file names, options and key=value settings in any order. Nothing here imports torch, NumPy or OpenCV,
so that `--help` comes at once.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from detector.commands.completion import complete
from detector.commands.threads import set_threads, wait_passively
from detector.invocation import command, distributed

WIDEST = 100
"""Columns of a line of help: longer ones are hard to read."""
_SETTING = re.compile(r"[A-Za-z_][\w.-]*\s*=")

Check = Callable[[argparse.ArgumentParser, argparse.Namespace], None]
Schema = str | Callable[[argparse.Namespace], str]


def command_parser(name: str, text: str | None, examples: str, notes: str = "") -> argparse.ArgumentParser:
    """Make the parser of a command.

    Args:
        name: Module of detector/commands, which also begins the messages.
        text: The module's docstring; its first line describes the command.
        examples: One command a line, beginning with a command's module name, or with "torchrun" and that name.
        notes: Text above the examples.
    """
    lines = [re.sub(r"^(torchrun )?(\w+)", _started, line) for line in examples.strip().splitlines()]
    parser = argparse.ArgumentParser(
        prog=command(name),
        description=(text or "").splitlines()[0],
        epilog="\n".join([*([notes, ""] if notes else []), "examples:", *(f"  {line}" for line in lines)]),
        formatter_class=_Help,
    )
    parser.set_defaults(command=name, schema="", config=None, settings=False, print_config=False)
    add_version(parser)
    add_threads(parser)
    return parser


class _Help(argparse.RawDescriptionHelpFormatter):
    """Fills paragraphs of prose to the terminal's width; commands and tables, which have indented lines, stay."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, width=min(shutil.get_terminal_size().columns - 2, WIDEST), **settings)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(part if "\n " in part else textwrap.fill(part, width) for part in paragraphs)


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add --version, which prints versions and the machine, and exits."""
    parser.add_argument("--version", action=_Version, nargs=0, help="print versions and this machine, for bug reports")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from detector.commands.version import describe_installation

        wait_passively()
        set_threads()
        print("\n".join(describe_installation()))
        parser.exit()


def add_config(parser: argparse.ArgumentParser, schema: Schema, default: str | None, *, files: str = "") -> None:
    """Add --config, --print-config and what `add_settings` adds.

    Args:
        parser: From `command_parser`.
        schema: The config's class as "module:class", or a function that chooses it by the options.
        default: Preset that is used without --config; None for the defaults of the schema alone.
        files: Help of the file names, see `add_settings`.
    """
    shown = "(default: %(default)s)" if default else ""
    parser.add_argument("--config", default=default, metavar="FILE", help=f"YAML file, or name of a preset {shown}")
    parser.add_argument("--print-config", action="store_true", help="print the resolved config as YAML and exit")
    add_settings(parser, schema, files=files)


def add_settings(parser: argparse.ArgumentParser, schema: Schema, *, files: str = "") -> None:
    """Add --settings, which prints every key, and the key=value settings, which options receive as `overrides`.

    Args:
        parser: From `command_parser`.
        schema: As in `add_config`.
        files: Help of the file names that stand among the settings, which options receive as `source`; empty where the
            command takes none.
    """
    parser.add_argument("--settings", action="store_true", help="print every setting with its default and exit")
    parser.set_defaults(schema=schema)
    if files:
        parser.add_argument("source", nargs="*", metavar="file | key=value", help=f"{files}, and settings")
        parser.set_defaults(overrides=None)
    else:
        parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the defaults")


def at_least(low: int) -> Callable[[str], int]:
    """Make the type of an argument that is a whole number from `low` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"expected a number from {low}, not {text!r}")
        return int(text)

    return number


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add --threads, which `start` applies."""
    text = "threads of torch, OpenCV and the kernels (default: one per core that this process may use)"
    parser.add_argument("--threads", type=at_least(1), metavar="N", help=text)


def start(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    work: Callable[[argparse.Namespace], int | None],
    *,
    stopped: str,
    check: Check | None = None,
    printed_only: bool | Callable[[argparse.Namespace], bool] = False,
) -> int:
    """Parse a command line and do the work in the frame (run.py), with its threads chosen; return the exit code.

    Args:
        parser: From `command_parser`.
        arguments: The words of the command line; None for the program's own.
        work: Function that does the work and returns the exit code, or None for done.
        stopped: Message for a user who interrupted the command, see `run`.
        check: Function that reports wrong usage by `parser.error`.
        printed_only: Whether the printed lines are the only result, see `run`; or a function that tells by the options.
    """
    complete(parser)
    options = parse(parser, arguments)
    if callable(printed_only):
        printed_only = printed_only(options)
    wait_passively()
    set_threads(getattr(options, "threads", None))
    if options.settings or options.print_config:
        from detector.commands.settings import show_settings

        work, stopped, printed_only = show_settings, "nothing was changed", True
    elif check:
        check(parser, options)

    from detector.commands.run import run

    return run(options.command, lambda: work(options), stopped=stopped, printed_only=printed_only)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line whose positional arguments may stand before, between and after its options.

    What stands behind `--` is no option whatever it begins with. Settings among the file names of `source` become
    `overrides`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--" in words:
        at = words.index("--")
        names = [f".{os.sep}{word}" if word.startswith("-") else word for word in words[at + 1 :]]
        words = names + words[:at]  # in front, where no option takes them for its values
    options = parser.parse_intermixed_args(words)
    if getattr(options, "overrides", ()) is None:
        options.source, options.overrides = split_settings(options.source)
    return options


def split_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words into file names and settings: those that begin like key=value and name no existing file."""
    settings = [word for word in words if _SETTING.match(word) and not os.path.lexists(word)]
    return [word for word in words if word not in settings], settings


def _started(match: re.Match[str]) -> str:
    return (distributed if match[1] else command)(match[2])
