"""Measure what each part of the detector is worth: the paper's rows on a data set, one table."""

from __future__ import annotations

import argparse
import sys

EXAMPLES = """Each classifier scores each box once; stopped, the same command goes on. Rows that share boxes and
classifiers with others cost nothing more.

examples:
  python tools/ablate.py --config configs/ablation_voc.yaml
  python tools/ablate.py --config configs/ablation_voc.yaml name=ablation_val100 data.split=val100
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, score, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML file of a table, or the name of a preset")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file's")
    options = parser.parse_intermixed_args(arguments)

    from detector.commands.run import run

    return run("ablate", lambda: _work(options), stopped="the same command goes on where it was")


def _work(options: argparse.Namespace) -> int:
    from detector.commands.run import say
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
    for line in unread:
        say("ablate", line)
    if unread:
        say("ablate", f"{len(unread)} images could not be read; in these numbers they have no detections")
    return 1 if unread else 0


if __name__ == "__main__":
    sys.exit(main())
