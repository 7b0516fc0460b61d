"""Measure what each part of the detector is worth, in one table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detector.commands.arguments import add_config, add_device, command_parser, start

NOTES = """Each classifier scores each box once; an interrupted run is resumed by the same command. Rows that share
boxes and classifiers with others cost nothing more."""
EXAMPLES = """
ablate
ablate --config ablation_voc name=ablation_val100 data.split=val100
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("ablate", __doc__, EXAMPLES, NOTES)
    add_config(result, "detector.experiments.ablation:AblationConfig", "ablation_voc")
    add_device(result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Score, print and write the table; return the exit code."""
    return start(parser(), arguments, _work, stopped="the same command resumes the run")


def _work(options: argparse.Namespace) -> int:
    from detector.commands.run import say, say_unread
    from detector.commands.targets import check_target
    from detector.config import load_config
    from detector.device import keep_freed_memory
    from detector.experiments.ablation import AblationConfig, ablate, format_markdown, write_table

    config = load_config(AblationConfig, options.config, options.overrides)
    for name in ("table.md", "table.json"):
        check_target(config.folder / name, "a table")
    keep_freed_memory()
    unread: list[str] = []
    table = ablate(config, options.device, unread)
    written = write_table(config, table)
    say("ablate", f"wrote {', '.join(map(str, written))}")
    print(format_markdown(config, table))
    return say_unread("ablate", unread, "in these numbers they have no detections")
