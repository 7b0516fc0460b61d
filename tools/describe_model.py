"""Print Table 1 of the paper as counted on our network, beside the paper's own figures."""

from __future__ import annotations

import argparse
import dataclasses
import sys

EXAMPLES = """examples:
  python tools/describe_model.py
  python tools/describe_model.py --variant torchvision --classes 201
  python tools/describe_model.py --size 256
  python tools/describe_model.py --set stem=separable --branches
  python tools/describe_model.py --set inception=naive
  python tools/describe_model.py --set width=0.5 norm=batch
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, count, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", choices=["paper", "torchvision"], default="paper", help="default: %(default)s")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="settings of GoogLeNetConfig")
    parser.add_argument("--branches", action="store_true", help="print the share of each Inception branch too")
    parser.add_argument("--classes", type=int, default=1000, help="outputs of the classifier (default: %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of the input, px (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.size < 32:
        parser.error(f"--size takes a number from 32, not {options.size}")

    from detector.commands.run import run

    return run("describe_model", lambda: _work(options), stopped="nothing is kept of it", printed_only=True)


def _work(options: argparse.Namespace) -> None:
    from detector.config import load_config
    from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
    from detector.network.pretrained import TORCHVISION_VARIANT
    from detector.network.table1 import count, format_branches, format_table

    variant = GoogLeNetConfig() if options.variant == "paper" else TORCHVISION_VARIANT
    stated = [f"classes={options.classes}", *options.set]
    settings = dataclasses.asdict(load_config(GoogLeNetConfig, None, stated))
    keys = [text.partition("=")[0].strip() for text in stated]
    network = GoogLeNet(dataclasses.replace(variant, **{key: settings[key] for key in keys}))
    rows = count(network, options.size)
    print(format_table(rows))
    if options.branches:
        print("\nmultiply-adds by branch\n" + format_branches(rows))


if __name__ == "__main__":
    sys.exit(main())
