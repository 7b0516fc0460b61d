"""Print Table 1 of the paper as counted on our network, beside the paper's own figures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detector.commands.arguments import add_settings, command_parser, start

EXAMPLES = """
describe_model
describe_model --variant torchvision --classes 201
describe_model --size 256
describe_model --set stem=separable --branches
describe_model --set inception=naive
describe_model --set width=0.5 norm=batch
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("describe_model", __doc__, EXAMPLES)
    result.add_argument("--variant", choices=["paper", "torchvision"], default="paper", help="default: %(default)s")
    result.add_argument("--set", nargs="+", default=[], metavar="key=value", help="settings of the network")
    add_settings(result, "detector.network.googlenet:GoogLeNetConfig")
    result.add_argument("--branches", action="store_true", help="print the share of each Inception branch too")
    result.add_argument("--classes", type=int, default=1000, help="outputs of the classifier (default: %(default)s)")
    result.add_argument("--size", type=int, default=224, help="side of the input, px (default: %(default)s)")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Count and print; return the exit code."""
    return start(parser(), arguments, _work, check=_check, stopped="nothing was changed", printed_only=True)


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.size < 32:
        parser.error(f"--size takes a number from 32, not {options.size}")


def _work(options: argparse.Namespace) -> None:
    import dataclasses

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
