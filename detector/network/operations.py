"""Multiply-adds of convolutions and linear layers, counted from the shapes of their results.

In: a module and a function that runs it.  Out: a number. Nothing is computed: the module runs on tensors without data.
Everything else a network does (pools, normalisation, sums) is left out, as in Table 1 of the paper.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def on_meta(module: Module) -> Module:
    """Copy a module in evaluation mode to PyTorch's meta device, where tensors have shapes and no data."""
    return copy.deepcopy(module).to("meta").eval()


def multiply_adds_of(layer: nn.Module, output: Tensor) -> int:
    """Return the multiply-adds of one layer from its result; 0 for what is no convolution or linear layer.

    Args:
        layer: Any module; the layers inside it are not counted.
        output: Its result, [N, C, ...]: each of its positions uses every weight once.
    """
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        return 0
    return layer.weight.numel() * (output.numel() // layer.weight.shape[0])


def multiply_adds(module: Module, run: Callable[[Module], object]) -> int:
    """Count the multiply-adds of all layers that a function runs.

    Args:
        module: A module on the meta device, see `on_meta`.
        run: Function that runs the module, or some of its layers, on tensors of the meta device.
    """
    total = 0

    def note(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += multiply_adds_of(layer, output)

    hooks = [
        layer.register_forward_hook(note) for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        run(module)
    finally:
        for hook in hooks:
            hook.remove()
    return total
