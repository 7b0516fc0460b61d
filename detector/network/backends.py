"""What runs a network at test: PyTorch, torch.compile, or onnxruntime where it is installed and faster.

In: a network, a device.  Out: a function from images [N, 3, S, S] to logits [N, K].
Measured on two AVX-512 cores (`python tools/benchmarks/network_speed.py`): with the paper's local response
normalisation PyTorch and our kernel are faster, since onnxruntime's own operator for it is slow; without it onnxruntime
is, unless the processor multiplies bfloat16. torch.compile makes ours a tenth to a third faster once it
has compiled; in whole detectors, whose last batches differ in size, nothing of that was left.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from detector.device import DeviceError, choose_precision
from detector.network.export import OnnxNetwork, to_onnx
from detector.network.folding import fold_batch_norm
from detector.network.googlenet import GoogLeNet, check_input
from detector.settings import BACKENDS

Network = Callable[[Tensor], Tensor]


def build_backend(
    name: str, network: GoogLeNet, device: torch.device | str = "cpu", *, size: int = 224, precision: str = "float32"
) -> Network:
    """The network ready to score, batch normalisation folded.

    Args:
        name: torch; compile; onnxruntime; or auto: the faster of torch and onnxruntime.
        network: it is not changed; a copy scores.
        device: where the images will be.
        size: side of the images, px.
        precision: float32, bfloat16 or auto, as detector.device.choose_precision takes it; classifier and softmax
            stay float32.

    Raises:
        ValueError: no such backend or precision.
        DeviceError: onnxruntime on another device than the CPU.
        ImportError: onnxruntime is wanted and not installed; names the command.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}")
    device = torch.device(device)
    if name == "onnxruntime" and device.type != "cpu":
        raise DeviceError(f"backend=onnxruntime computes on the CPU, not on {device}; set backend=torch")
    installed = all(importlib.util.find_spec(package) for package in ("onnx", "onnxscript", "onnxruntime"))
    half = choose_precision(precision, device) == torch.bfloat16
    faster = device.type == "cpu" and network.config.norm != "lrn" and installed and not half
    own = copy.deepcopy(network).eval()
    if name == "onnxruntime" or (name == "auto" and faster):
        return OnnxNetwork(to_onnx(own, size))
    folded = fold_batch_norm(own).to(device)
    run = _in_bfloat16(folded) if half else folded
    return torch.compile(run) if name == "compile" else run


def _in_bfloat16(network: GoogLeNet) -> Network:
    """The trunk computes in bfloat16; the network is changed."""
    network.trunk.bfloat16()

    def run(x: Tensor) -> Tensor:
        check_input(x)
        return network.classify(network.trunk(x.bfloat16()))

    return run
