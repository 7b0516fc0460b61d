"""A command line of file names and key=value settings in any order -> the two apart."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

_SETTING = re.compile(r"[A-Za-z_][\w.-]*\s*=")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command whose positional arguments are file names, before, between and after its options.

    What stands behind `--` is no option whatever it begins with.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--" in words:
        at = words.index("--")
        names = [f".{os.sep}{word}" if word.startswith("-") else word for word in words[at + 1 :]]
        words = names + words[:at]  # in front, where no option takes them for its values
    return parser.parse_intermixed_args(words)


def split_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(file names, key=value settings): a word is a setting if it begins like one and there is no such file."""
    settings = [word for word in words if _SETTING.match(word) and not os.path.lexists(word)]
    return [word for word in words if word not in settings], settings
