"""What the command lines share: help that ends with commands to paste, settings, devices, and the way into the frame.

A command line is file names, options and key=value settings in any order. Nothing here imports torch, NumPy or OpenCV,
so that `--help` comes at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence

from detector.invocation import command, distributed

_SETTING = re.compile(r"[A-Za-z_][\w.-]*\s*=")

Check = Callable[[argparse.ArgumentParser, argparse.Namespace], None]
Schema = str | Callable[[argparse.Namespace], str]


def command_parser(name: str, text: str | None, examples: str, notes: str = "") -> argparse.ArgumentParser:
    """Make the parser of a command.

    Args:
        name: Module of detector/commands; also the beginning of its messages.
        text: The module's docstring; its first line describes the command.
        examples: A command line a line, beginning with a command's module name, or with "torchrun" and that name.
        notes: Shown above the examples.
    """
    lines = [re.sub(r"^(torchrun )?(\w+)", _started, line) for line in examples.strip().splitlines()]
    parser = argparse.ArgumentParser(
        prog=command(name),
        description=(text or "").splitlines()[0],
        epilog="\n".join([*([notes, ""] if notes else []), "examples:", *(f"  {line}" for line in lines)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=name, schema="", config=None, settings=False, print_config=False)
    return parser


def add_config(
    parser: argparse.ArgumentParser, schema: Schema, default: str | None, *, beside_files: bool = False
) -> None:
    """Add --config, --settings, --print-config and the key=value settings, which options receive as `overrides`.

    Args:
        parser: From `command_parser`.
        schema: The config's class as "module:class", or a function that chooses it by the options.
        default: Preset that is used without --config; None for the defaults of the schema alone.
        beside_files: The settings stand among the file names of the argument `source`, which the command adds.
    """
    shown = "(default: %(default)s)" if default else ""
    parser.add_argument("--config", default=default, metavar="FILE", help=f"YAML file, or name of a preset {shown}")
    add_settings(parser, schema)
    parser.add_argument("--print-config", action="store_true", help="print the resolved config as YAML and exit")
    if beside_files:
        parser.set_defaults(overrides=None)
    else:
        parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the config's")


def add_settings(parser: argparse.ArgumentParser, schema: Schema) -> None:
    """Add --settings, which prints every key of a schema."""
    parser.add_argument("--settings", action="store_true", help="print every setting with its default and exit")
    parser.set_defaults(schema=schema)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")


def start(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    work: Callable[[argparse.Namespace], int | None],
    *,
    stopped: str,
    check: Check | None = None,
    printed_only: bool = False,
) -> int:
    """Parse a command line and do the work in the frame (run.py); return the exit code.

    Args:
        parser: From `command_parser`.
        arguments: The words of the command line; None for the program's own.
        work: Does the work; the exit code, None for done.
        stopped: As `run` takes it.
        check: Reports wrong usage by `parser.error`.
        printed_only: As `run` takes it.
    """
    options = parse(parser, arguments)
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
    """(file names, key=value settings): a word is a setting if it begins like one and there is no such file."""
    settings = [word for word in words if _SETTING.match(word) and not os.path.lexists(word)]
    return [word for word in words if word not in settings], settings


def _started(match: re.Match[str]) -> str:
    return (distributed if match[1] else command)(match[2])
