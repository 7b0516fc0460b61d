"""The trunk in 8-bit integers: faster where the processor multiplies them faster than float32.

In: a trunk with batch normalisation folded, and the ranges of its activations.  Out: a trunk with the same layers by
the same names, whose convolutions multiply uint8 activations by int8 weights and add in int32. Images and what the last
layers give are float32, as before. The first convolution and local response normalisation stay float32.

Activations follow a ReLU, so that 0 is their smallest value: x ≈ scale · q with q in 0..255 and no zero point. Weights
have one scale a filter and 7 bits: without VNNI a processor adds two products in int16, which 255 · 127 · 2 exceeds.
The branches of an Inception module share the scale of its output, so that joining them copies bytes; a maximum of
bytes is exact. The operators are those that torch compiles quantised models to (oneDNN's); torch's quantised tensors,
which its older operators need, are deprecated.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from functools import partial

import cv2
import torch
from torch import Tensor, nn

from detector.device import DeviceError, choose_precision
from detector.invocation import command
from detector.network.googlenet import Convolution, Inception
from detector.network.lrn import LocalResponseNorm
from detector.threads import Array, spread
from proposals.settings import SCORING_PRECISIONS

Ranges = Mapping[str, float]
"""Name of a layer of the trunk -> the largest value of its output that a byte represents; larger ones become that."""

TOP = 63  # of a weight
LEVELS = 255  # of an activation
SAMPLE = 20_000  # values that calibration takes of a layer at a time
CANDIDATES = 100  # ranges that calibration tries
BINS = 8192  # of the histogram of a layer's values


def calibrate(trunk: nn.Module, run: Callable[[], object]) -> dict[str, float]:
    """Find the range of each layer's output that loses least (mean square error) when it is stored in a byte.

    Args:
        trunk: Trunk of a GoogLeNet in float32, batch normalisation folded.
        run: Passes images or regions through it, in as many calls as it likes; some dozens of images suffice.

    Returns:
        Ranges of all layers that ran.
    """
    samples: dict[str, list[Tensor]] = {}

    def record(name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        values = output.detach().float().permute(0, 2, 3, 1).flatten()
        samples.setdefault(name, []).append(values[:: max(1, len(values) // SAMPLE) | 1].cpu())  # odd: all channels

    hooks = [
        module.register_forward_hook(partial(record, name))
        for name, module in trunk.named_modules()
        if isinstance(module, Convolution | Inception | LocalResponseNorm | nn.MaxPool2d | nn.Identity)
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _best_range(torch.cat(parts)) for name, parts in samples.items()}


def _best_range(values: Tensor) -> float:
    largest = float(values.max())
    if largest <= 0:
        return 1.0
    counts = torch.histc(values, BINS, 0, largest).double()
    middles = (torch.arange(BINS).double() + 0.5) * largest / BINS
    candidates = [largest * (i + 1) / CANDIDATES for i in range(CANDIDATES)]
    return min(candidates, key=lambda top: float(counts @ (_rounded(middles, top / LEVELS) - middles).square()))


def _rounded(values: Tensor, scale: float) -> Tensor:
    return (values / scale).round().clamp(0, LEVELS) * scale


def quantise_trunk(trunk: nn.Sequential, ranges: Ranges, *, cut: Collection[str] = ()) -> nn.Sequential:
    """Build the trunk that computes in 8-bit integers; the given one is not changed.

    Args:
        trunk: Trunk of a GoogLeNet, batch normalisation folded.
        ranges: What `calibrate` found for it.
        cut: Names of layers that the trunk may be cut after; like the last, they give float32.

    Raises:
        ValueError: a range is missing, or the trunk has layers that this does not know (`inception="naive"`).
    """
    names = [name for name, _ in trunk.named_children()]
    floats = {names[-1], *cut}
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    scale = None  # of the bytes that arrive; None: float32
    for name, module in trunk.named_children():
        if isinstance(module, nn.MaxPool2d):
            started = any(isinstance(layer, QuantisedConvolution | Quantise) for layer in layers.values())
            if scale is None and started:
                scale = _scale(ranges, name)
            layers[name] = module if scale is None else BytePool(module, scale)
        elif isinstance(module, LocalResponseNorm | nn.Identity):
            scale = _scale(ranges, name)
            layers[name] = Quantise(module, scale)
        elif name == "conv1":
            layers[name] = module
        elif isinstance(module, Convolution) and scale is not None:
            # What normalises next reads float32.
            after = names[names.index(name) + 1]
            out = None if after.startswith("norm") else _scale(ranges, name)
            layers[name] = QuantisedConvolution(module.conv, scale, out)
            scale = out
        elif isinstance(module, Inception) and scale is not None:
            out = None if name in floats else _scale(ranges, name)
            layers[name] = _quantise_inception(module, name, ranges, scale, out)
            scale = out
        else:
            raise ValueError(f"int8 has no form of the layer {name} ({type(module).__name__}); set precision=float32")
    return nn.Sequential(layers).eval()


def prepare_trunk(
    trunk: nn.Sequential, precision: str, device: torch.device, ranges: Ranges | None, *, cut: Collection[str] = ()
) -> tuple[nn.Sequential, torch.dtype]:
    """Convert a trunk, which may be changed, to a precision.

    Args:
        trunk: Trunk of a GoogLeNet on the device, batch normalisation folded.
        precision: float32, bfloat16, int8, or auto, which is one of the first two (`choose_precision`).
        device: Device of the trunk.
        ranges: For int8, what `calibrate` found.
        cut: Names of layers that the trunk may be cut after.

    Returns:
        The trunk, and the type of its input.

    Raises:
        ValueError: there is no such precision.
        DeviceError: the device, this build of torch or a network without ranges has no int8.
    """
    if precision not in SCORING_PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(SCORING_PRECISIONS)}, not {precision!r}")
    if precision != "int8":
        dtype = choose_precision(precision, device)
        return trunk.to(dtype), dtype
    if device.type != "cpu" or not has_int8():
        where = f"PyTorch {torch.__version__} on this processor" if device.type == "cpu" else f"a {device.type} device"
        raise DeviceError(f"{where} has no int8 convolutions; set precision=auto")
    if not ranges:
        raise DeviceError(
            "precision=int8 needs the ranges of the network's activations, and these weights have none; find them: "
            f"{command('fit_cascade')} detector.models=[MODEL]; or set precision=auto"
        )
    return quantise_trunk(trunk, ranges, cut=cut), torch.float32


def has_int8() -> bool:
    """Whether this build of torch has the operators."""
    return hasattr(torch.ops.onednn, "qconv2d_pointwise") and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def _quantise_inception(module: Inception, name: str, ranges: Ranges, scale: float, out: float | None) -> Inception:
    result = Inception.__new__(Inception)
    nn.Module.__init__(result)
    result.channels = module.channels
    for branch, part in module.named_children():
        assert isinstance(part, Convolution | nn.MaxPool2d)
        if isinstance(part, nn.MaxPool2d):
            result.add_module(branch, BytePool(part, scale))
            continue
        before = _scale(ranges, f"{name}.{branch}_reduce") if hasattr(module, f"{branch}_reduce") else scale
        after = _scale(ranges, f"{name}.{branch}") if branch.endswith("_reduce") else out
        result.add_module(branch, QuantisedConvolution(part.conv, before, after))
    return result


def _scale(ranges: Ranges, name: str) -> float:
    if name not in ranges:
        raise ValueError(f"the range of {name} is missing; calibrate these weights again")
    return ranges[name] / LEVELS


class QuantisedConvolution(nn.Module):
    """Convolution and ReLU of bytes: y = max(0, scale · weight_scale · Σ q·w + bias).

    Args:
        conv: The convolution in float32.
        scale: Of the input, its value per step of a byte.
        out_scale: Of the output; None gives float32.
    """

    def __init__(self, conv: nn.Module | Tensor, scale: float, out_scale: float | None) -> None:
        super().__init__()
        assert isinstance(conv, nn.Conv2d)
        weight = conv.weight.detach().float()
        self.scale, self.out_scale = scale, out_scale
        self.weight_scale = (weight.abs().amax((1, 2, 3)) / TOP).clamp(min=1e-12).contiguous()
        self.geometry = [list(map(int, numbers)) for numbers in (conv.stride, conv.padding, conv.dilation)]
        self.zero_points = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = torch.zeros(len(weight)) if conv.bias is None else conv.bias.detach().float()
        steps = (weight / self.weight_scale[:, None, None, None]).round().to(torch.int8)
        self.packed = torch.ops.onednn.qconv_prepack(
            steps.contiguous(memory_format=torch.channels_last), self.weight_scale, scale, 0, *self.geometry, 1, None
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] uint8 -> [N, filters, h, w] uint8 or float32."""
        dtype = torch.float32 if self.out_scale is None else torch.uint8
        result: Tensor = torch.ops.onednn.qconv2d_pointwise.default(
            x, self.scale, 0, self.packed, self.weight_scale, self.zero_points, self.bias, *self.geometry, 1,
            self.out_scale or 1.0, 0, dtype, "relu", [], "",
        )  # fmt: skip
        return result


class BytePool(nn.Module):
    """Maximum pooling of bytes; float32 is stored in bytes of the scale first."""

    def __init__(self, pool: nn.MaxPool2d, scale: float) -> None:
        super().__init__()
        self.scale = scale
        numbers = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        self.geometry = [[number, number] for number in numbers]
        self.ceil = pool.ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] uint8 or float32 -> [N, C, h, w] uint8."""
        x = x if x.dtype == torch.uint8 else to_bytes(x, self.scale)
        result: Tensor = torch.ops.quantized.max_pool2d(x, *self.geometry, self.ceil)
        return result


class Quantise(nn.Module):
    """A layer that computes in float32, its result stored in bytes of a scale."""

    def __init__(self, layer: nn.Module, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = layer, scale

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] float32 -> the same shape, uint8."""
        return to_bytes(self.layer(x), self.scale)


def to_bytes(x: Tensor, scale: float) -> Tensor:
    """Store values that are not negative as round(x / scale), at most 255: [N, C, H, W] -> uint8, channels last."""
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.empty_like(x, dtype=torch.uint8)
    spread(partial(_store, 1 / scale), [tensor.permute(0, 2, 3, 1).flatten(0, 2).numpy() for tensor in (x, y)])
    return y


def _store(factor: float, x: Array, y: Array) -> None:
    """[M, C] -> [M, C]; OpenCV rounds to the nearest and clips in one pass."""
    cv2.convertScaleAbs(x, dst=y, alpha=factor)
