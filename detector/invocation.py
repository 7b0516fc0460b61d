"""How this project's commands are started here, so that messages and `--help` name what the user can paste.

The same commands have two forms: `python tools/detect.py` in the repository, `googlenet-rcnn detect` where the wheel is
installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

CONSOLE = "googlenet-rcnn"
TOOLS = Path(__file__).resolve().parent.parent / "tools"


def command(name: str) -> str:
    """Return the words that start a command, in the form in which the running program itself was started.

    A program that is none of our commands, such as a notebook, gets the repository's form where the package lies in the
    repository, else the console command.

    Args:
        name: Module of detector/commands, such as "eval_map".
    """
    folder = Path(sys.argv[0]).parent
    if not from_console():
        if folder.name == TOOLS.name and (folder / f"{name}.py").is_file():
            return f"python {folder / name}.py"
        if (TOOLS / f"{name}.py").is_file():
            return f"python {TOOLS.name}/{name}.py"
    return f"{CONSOLE} {name.replace('_', '-')}"


def distributed(name: str) -> str:
    """Return the words that start a command in two processes."""
    words = command(name)
    torchrun = "torchrun --nproc-per-node 2 "
    return torchrun + (f"--no-python {words}" if words.startswith(CONSOLE) else words.removeprefix("python "))


def label(name: str) -> str:
    """Return the beginning of a command's messages: its name, with hyphens where the console command was used."""
    return name.replace("_", "-") if from_console() else name


def from_console() -> bool:
    """Return whether the console command was used."""
    return Path(sys.argv[0]).stem.removesuffix("-script") == CONSOLE
