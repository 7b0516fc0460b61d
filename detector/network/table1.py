"""Table 1 of the paper, counted: output, parameters and multiply-adds of each layer beside the paper's figures.

The paper's operations follow from its filter counts except in conv1 (34M is a separable 7×7), 5a and, by rounding, 4a;
its parameters, in units of 1,024, do not in conv1, 4a and 4c to 5b. Filter counts are what everybody builds; so do we.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from detector.network.googlenet import GoogLeNet
from detector.network.operations import multiply_adds_of, on_meta
from detector.table import columns

PAPER = {
    "conv1": ("2.7K", "34M"),
    "conv2": ("112K", "360M"),
    "inception_3a": ("159K", "128M"),
    "inception_3b": ("380K", "304M"),
    "inception_4a": ("364K", "73M"),
    "inception_4b": ("437K", "88M"),
    "inception_4c": ("463K", "100M"),
    "inception_4d": ("580K", "119M"),
    "inception_4e": ("840K", "170M"),
    "inception_5a": ("1072K", "54M"),
    "inception_5b": ("1388K", "71M"),
    "fc": ("1000K", "1M"),
}
"""Columns "params" and "ops" of Table 1; its conv2 holds our conv2_reduce too."""


_MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
DEPTH = {"conv1": 1, "conv2": 2, "fc": 1} | {f"inception_{name}": 2 for name in _MODULES}
"""Column "depth" of Table 1; its sum is the 22 layers of the paper."""

BRANCHES = {"branch1": "1×1", "branch2": "3×3", "branch3": "5×5", "branch4": "pool"}


@dataclass(frozen=True)
class Row:
    """One layer, or several added up.

    Attributes:
        name: Name in `GoogLeNet.trunk`, or "fc".
        output: Shape of its result for one image, (C, H, W) or (K,).
        weights: Number of kernel weights and batch-normalisation scales.
        biases: Number of biases and batch-normalisation shifts.
        multiply_adds: Multiply-adds of its convolutions and linear layers for one image.
        branches: The multiply-adds of each branch of an Inception module, with its reduction or projection.
    """

    name: str
    output: tuple[int, ...]
    weights: int
    biases: int
    multiply_adds: int
    branches: dict[str, int] = field(default_factory=dict)


def count(network: GoogLeNet, size: int = 224) -> list[Row]:
    """Count every layer of the trunk and the classifier by running one empty image; auxiliary heads are left out.

    Args:
        network: Any variant; it is not changed.
        size: Side of the image, px.

    Raises:
        ValueError: the size is less than the network's smallest.
    """
    network = on_meta(network)
    layers = dict(network.trunk.named_children()) | {"fc": network.fc}
    outputs: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        outputs[module] = output

    for module in network.modules():
        module.register_forward_hook(note)
    network(torch.zeros(1, 3, size, size, device="meta"))

    rows = []
    for name, layer in layers.items():
        biases = sum(p.numel() for key, p in layer.named_parameters() if key.endswith("bias"))
        weights = sum(p.numel() for p in layer.parameters()) - biases
        multiply_adds = 0
        branches: dict[str, int] = {}
        for path, module in layer.named_modules():
            used = multiply_adds_of(module, outputs[module])
            multiply_adds += used
            if used and path.startswith("branch"):
                branch = BRANCHES[path[: len("branch1")]]
                branches[branch] = branches.get(branch, 0) + used
        rows.append(Row(name, tuple(outputs[layer].shape[1:]), weights, biases, multiply_adds, branches))
    return rows


def add_up(name: str, rows: Sequence[Row]) -> Row:
    """Add rows up; the output is the last one's."""
    return Row(
        name,
        rows[-1].output,
        sum(row.weights for row in rows),
        sum(row.biases for row in rows),
        sum(row.multiply_adds for row in rows),
    )


def format_table(rows: Sequence[Row], width: int | None = None) -> str:
    """Format rows as an aligned table with a total; conv2 is joined with its reduction as in the paper.

    Args:
        rows: The layers.
        width: Most characters in a line, see `detector.table.columns`; None for no limit.
    """
    reduce = next(row for row in rows if row.name == "conv2_reduce")
    joined = [add_up("conv2", [reduce, row]) if row.name == "conv2" else row for row in rows if row is not reduce]
    lines: list[Sequence[str]] = [
        ("layer", "output", "depth", "weights", "biases", "mult-adds (M)", "paper params", "paper ops")
    ]
    for row in [*joined, add_up("total", rows)]:
        output = "×".join(str(side) for side in (*row.output[1:], row.output[0]))
        depth = DEPTH.get(row.name, "") if row.name != "total" else sum(DEPTH.values())
        counted = f"{row.weights:,}", f"{row.biases:,}", f"{row.multiply_adds / 1e6:.2f}"
        figures = counted if row.weights else ("", "", "")
        lines.append((row.name, output, str(depth), *figures, *PAPER.get(row.name, ("", ""))))
    return "\n".join(columns(lines, width=width, left=(0, 1)))


def format_branches(rows: Sequence[Row], width: int | None = None) -> str:
    """Format the share of each branch in the multiply-adds of each Inception module, in percent."""
    modules = [row for row in rows if row.branches]
    names = [name for name in BRANCHES.values() if any(name in row.branches for row in modules)]
    lines: list[Sequence[str]] = [("module", *names)]
    for row in modules:
        shares = (100 * row.branches.get(name, 0) / row.multiply_adds for name in names)
        lines.append((row.name, *(f"{share:.1f}%" for share in shares)))
    return "\n".join(columns(lines, width=width))
