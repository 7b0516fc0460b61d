# PYTHON_ARGCOMPLETE_OK
"""The commands, one module each; `main` is the console command `googlenet-rcnn`, which runs them by name.

run.py is the frame of all (errors, signals, exit codes), arguments.py what their command lines share.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from detector.commands.arguments import add_version
from detector.commands.completion import command_of_line, complete
from detector.invocation import CONSOLE

COMMANDS = (
    "new_config",
    "detect",
    "eval_map",
    "train_classifier",
    "train_multibox",
    "extract_proposals",
    "import_proposals",
    "eval_proposals",
    "ablate",
    "fit_cascade",
    "classify",
    "eval_classifier",
    "describe_model",
    "models",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    modules = {name.replace("_", "-"): name for name in COMMANDS}
    asked = command_of_line(modules)  # of a line that the shell wants to be completed
    if asked:
        complete(import_module(f"detector.commands.{modules[asked]}").parser(), after=1)
    if words and words[0] in modules:
        code: int = import_module(f"detector.commands.{modules[words[0]]}").main(words[1:])
        return code
    parser = argparse.ArgumentParser(
        prog=CONSOLE,
        usage=f"{CONSOLE} [-h] [--version] command ...",
        description="Object detection with region proposals and GoogLeNet.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=modules, metavar="command", help="name of a command")
    add_version(parser)
    complete(parser)
    summaries = {name: (import_module(f"detector.commands.{module}").__doc__ or "") for name, module in modules.items()}
    lines = [f"  {name:<18} {text.splitlines()[0]}" for name, text in summaries.items()]
    parser.epilog = "\n".join(["commands:", *lines, "", f"{CONSOLE} COMMAND --help says more."])
    parser.parse_args(words)
    raise AssertionError("a known command was not run")  # parse_args accepts nothing else
