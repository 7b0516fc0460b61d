"""What runs a network at test: PyTorch, or onnxruntime, an optional extra.

In: a network, a device.  Out: a function from images [N, 3, S, S] to logits and box offsets.
With the paper's local response normalisation PyTorch and our kernel are the faster of the two, because onnxruntime's
own operator for it is slow; without it onnxruntime is, unless the processor multiplies bfloat16
(`python tools/benchmarks/network_speed.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from detector.device import DeviceError
from detector.network.folding import fold_batch_norm
from detector.network.googlenet import GoogLeNet, Heads, check_input
from detector.network.quantised import Ranges, prepare_trunk
from detector.settings import BACKENDS

Network = Callable[[Tensor], Heads]


def build_backend(
    name: str,
    network: GoogLeNet,
    device: torch.device | str = "cpu",
    *,
    size: int = 224,
    precision: str = "float32",
    ranges: Ranges | None = None,
) -> Network:
    """Make a network ready to score, with batch normalisation folded.

    Args:
        name: torch or onnxruntime.
        network: It is not changed; a copy scores.
        device: Where the images will be.
        size: Side of the images, px.
        precision: float32, bfloat16, int8 or auto, see `detector.network.quantised.prepare_trunk`; the layers on top of
            the trunk and softmax stay float32.
        ranges: For int8, what `detector.network.quantised.calibrate` found.

    Raises:
        ValueError: no such backend or precision.
        DeviceError: onnxruntime on another device than the CPU, or no int8 for this network.
        ImportError: onnxruntime is wanted and not installed; names the command.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}")
    device = torch.device(device)
    own = copy.deepcopy(network).eval()
    if name == "onnxruntime":
        if device.type != "cpu":
            raise DeviceError(f"backend=onnxruntime computes on the CPU, not on {device}; set backend=torch")
        from detector.network.export import OnnxNetwork, to_onnx  # registers an operator with torch

        return OnnxNetwork(to_onnx(own, size))
    folded = fold_batch_norm(own).to(device)
    folded.trunk, dtype = prepare_trunk(folded.trunk, precision, device, ranges)

    def run(x: Tensor) -> Heads:
        check_input(x)
        return folded.heads(folded.trunk(x.to(dtype)))

    return run
