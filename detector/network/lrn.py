"""Local response normalisation across channels: y = x / (1 + α/5 · Σ₅ x²)^β, α = 1e-4, β = 0.75.

In, out: [N, C, H, W]; the sum runs over the channel itself and two neighbours on each side, fewer at the ends.
GoogLeNet §5, figure 3, has it after pool1 and before pool2; the constants are those of BVLC caffe bvlc_googlenet.
On a CPU `F.local_response_norm` takes about as long as all convolutions of the network together, hence the compiled
kernels here. They use s^-0.75 = 1 / (√s · √√s): two square roots cost far less than a power.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from detector.threads import Array, Kernel, spread
from proposals.compiling import compiled

ALPHA = 1e-4
BETA = 0.75
SIZE = 5

_HALF = SIZE // 2
_ONE = np.float32(1)
_BIT, _SIXTEEN, _BELOW_HALF = np.uint32(1), np.uint32(16), np.uint32(0x7FFF)
_SHARE = np.float32(ALPHA / SIZE)  # what each squared channel adds to the sum
_SLOPE = np.float32(2 * ALPHA * BETA / SIZE)

# One thread each (numba's own threads do not survive a fork); loops vectorise only if sums may be reordered.
_compiled: Callable[[Kernel], Kernel] = compiled(error_model="numpy", fastmath={"contract", "reassoc", "nsz"})


def local_response_norm(x: Tensor) -> Tensor:
    """Divide each value by a power of the mean square of its five neighbouring channels.

    Equals `F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)` and keeps the memory format of x. On the CPU the compiled
    kernels compute it for channels last in memory, which is how this package's networks keep theirs, in float32 for
    float32 and narrower types.

    Args:
        x: [N, C, H, W], floating point.

    Raises:
        ValueError: x is not [N, C, H, W].
    """
    if x.dim() != 4:
        raise ValueError(f"local response normalisation needs [N, C, H, W], got {list(x.shape)}")
    # What records the network (compile, export, trace) sees torch's own operations only.
    recorded = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    if x.device.type == "cpu" and x.dtype != torch.float64 and channels_last and not recorded:
        if x.dtype == torch.bfloat16 and not (x.requires_grad and torch.is_grad_enabled()):
            y = torch.empty_like(x)
            spread(_forward_rows_bfloat16, [_as_array(tensor.view(torch.uint16)) for tensor in (x.detach(), y)])
            return y
        result: Tensor = _CompiledNorm.apply(x.float())
        return result.to(x.dtype)
    return _torch_norm(x)


class LocalResponseNorm(nn.Module):
    """`local_response_norm` as a layer without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        return local_response_norm(x)


def _torch_norm(x: Tensor) -> Tensor:
    """The formula in torch's operations: other devices, other types, compilers."""
    values = x if x.dtype == torch.float64 else x.float()
    squares = F.pad(values * values, (0, 0, 0, 0, _HALF, _HALF))
    total = squares[:, : x.shape[1]]
    for i in range(1, SIZE):
        total = total + squares[:, i : i + x.shape[1]]
    root = (1 + ALPHA / SIZE * total).sqrt()
    return (values / (root * root.sqrt())).to(x.dtype)


class _CompiledNorm(torch.autograd.Function):
    """float32 on the CPU, channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.detach()
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        spread(_forward_rows, [_as_array(tensor) for tensor in (x, y)])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        grad_y = grad_y.contiguous(memory_format=torch.channels_last)
        grad_x = torch.empty_like(x)
        spread(_backward_rows, [_as_array(tensor) for tensor in (x, grad_y, grad_x)])
        return grad_x


def _as_array(x: Tensor) -> Array:
    """The tensor's memory, channels last: [N·H·W, C]."""
    array: Array = x.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    return array


@_compiled
def _forward_rows(x: Array, y: Array) -> None:
    """[M, C] -> [M, C]."""
    rows, channels = x.shape
    squares = np.zeros(channels + 2 * _HALF, np.float32)  # zeros at both ends
    for row in range(rows):
        for c in range(channels):
            squares[c + _HALF] = x[row, c] * x[row, c]
        for c in range(channels):
            total = squares[c]
            for i in range(1, SIZE):
                total += squares[c + i]
            root = np.sqrt(_ONE + _SHARE * total)
            y[row, c] = x[row, c] / (root * np.sqrt(root))


@_compiled
def _forward_rows_bfloat16(x: NDArray[np.uint16], y: NDArray[np.uint16]) -> None:
    """[M, C] -> [M, C]; bits of bfloat16, which are the upper half of a float32's."""
    rows, channels = x.shape
    squares = np.zeros(channels + 2 * _HALF, np.float32)
    for row in range(rows):
        for c in range(channels):
            value = np.uint32(np.uint32(x[row, c]) << _SIXTEEN).view(np.float32)
            squares[c + _HALF] = value * value
        for c in range(channels):
            total = squares[c]
            for i in range(1, SIZE):
                total += squares[c + i]
            root = np.sqrt(_ONE + _SHARE * total)
            value = np.uint32(np.uint32(x[row, c]) << _SIXTEEN).view(np.float32)
            bits = np.float32(value / (root * np.sqrt(root))).view(np.uint32)
            odd = (bits >> _SIXTEEN) & _BIT  # to the nearest, of two as near to the even one
            y[row, c] = np.uint16((bits + _BELOW_HALF + odd) >> _SIXTEEN)


@_compiled
def _backward_rows(x: Array, grad_y: Array, grad_x: Array) -> None:
    """[M, C], [M, C] -> [M, C]: with s the sum, grad_x = grad_y·s^-β - 2αβ/5 · x · Σ₅ grad_y·x·s^(-β-1)."""
    rows, channels = x.shape
    squares = np.zeros(channels + 2 * _HALF, np.float32)
    powers = np.zeros(channels, np.float32)
    pulls = np.zeros(channels + 2 * _HALF, np.float32)
    for row in range(rows):
        for c in range(channels):
            squares[c + _HALF] = x[row, c] * x[row, c]
        for c in range(channels):
            total = squares[c]
            for i in range(1, SIZE):
                total += squares[c + i]
            scale = _ONE + _SHARE * total
            root = np.sqrt(scale)
            powers[c] = _ONE / (root * np.sqrt(root))
            pulls[c + _HALF] = grad_y[row, c] * x[row, c] * powers[c] / scale
        for c in range(channels):
            pull = pulls[c]
            for i in range(1, SIZE):
                pull += pulls[c + i]
            grad_x[row, c] = grad_y[row, c] * powers[c] - _SLOPE * x[row, c] * pull
