"""Print Table 1 of the paper as counted on our network, beside the paper's own figures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detector.commands.arguments import add_settings, at_least, command_parser, start

EXAMPLES = """
describe_model
describe_model --variant torchvision classes=201
describe_model --size 256
describe_model stem=separable --branches
describe_model inception=naive
describe_model width=0.5 norm=batch
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("describe_model", __doc__, EXAMPLES)
    result.add_argument("--variant", choices=["paper", "torchvision"], default="paper", help="default: %(default)s")
    add_settings(result, "detector.network.googlenet:GoogLeNetConfig")
    result.add_argument("--branches", action="store_true", help="print the share of each Inception branch too")
    result.add_argument("--size", type=at_least(32), default=224, help="side of the input, px (default: %(default)s)")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Count and print; return the exit code."""
    return start(parser(), arguments, _work, stopped="nothing was changed", printed_only=True)


def _work(options: argparse.Namespace) -> None:
    from detector.config import config_to_dict, load_config
    from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
    from detector.network.pretrained import TORCHVISION_VARIANT
    from detector.network.table1 import count, format_branches, format_table
    from detector.terminal import table_width

    variant = config_to_dict(GoogLeNetConfig() if options.variant == "paper" else TORCHVISION_VARIANT)
    overrides = [*(f"{key}={value}" for key, value in variant.items()), *options.overrides]
    rows = count(GoogLeNet(load_config(GoogLeNetConfig, None, overrides)), options.size)
    width = table_width()
    print(format_table(rows, width))
    if options.branches:
        print("\nmultiply-adds by branch\n" + format_branches(rows, width))
