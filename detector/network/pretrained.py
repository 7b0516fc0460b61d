"""Weights trained elsewhere -> GoogLeNet.

In: BVLC caffe's bvlc_googlenet, as the ONNX model zoo's file or as safetensors with Caffe's layer names; or a state
dict of torchvision googlenet.py.
Out: the network with the logits of its source, and the `InputConvention` it was trained with. Caffe's reads BGR; its
conv1 is converted here, once, so that every network of ours reads RGB. Auxiliary heads are left out: Caffe's published
weights have none, torchvision's are untrained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention
from detector.network.published import read_onnx
from proposals.errors import UserError

CAFFE_INPUT = InputConvention(mean=(123.0, 117.0, 104.0), std=(1.0, 1.0, 1.0))
TORCHVISION_INPUT = InputConvention(mean=(127.5,) * 3, std=(127.5,) * 3)  # its transform_input: 2x - 1 of x in 0..1

TORCHVISION_VARIANT = GoogLeNetConfig(branch3_kernel=3, pool4_kernel=2, norm="batch", dropout=0.2)

_MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
_CAFFE_STEM = {"conv1": "conv1/7x7_s2", "conv2_reduce": "conv2/3x3_reduce", "conv2": "conv2/3x3"}
_CAFFE_BRANCHES = {
    "branch1": "1x1",
    "branch2_reduce": "3x3_reduce",
    "branch2": "3x3",
    "branch3_reduce": "5x5_reduce",
    "branch3": "5x5",
    "branch4": "pool_proj",
}
_TORCHVISION_STEM = {"conv1": "conv1", "conv2_reduce": "conv2", "conv2": "conv3"}
_TORCHVISION_BRANCHES = {
    "branch1": "branch1",
    "branch2_reduce": "branch2.0",
    "branch2": "branch2.1",
    "branch3_reduce": "branch3.0",
    "branch3": "branch3.1",
    "branch4": "branch4.1",
}


def load_caffe(path: str | Path) -> tuple[GoogLeNet, InputConvention]:
    """Load Caffe's weights into the paper's network, in evaluation mode.

    Args:
        path: safetensors with `<layer>.weight` and `<layer>.bias`, kernels [O, I, H, W], conv1 for BGR, any float type;
            or the same in an ONNX file, .onnx.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: The file is neither of these; or a tensor is missing, unknown or has another shape. The message names
            the file and the tensor.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        state = read_onnx(Path(path)) if Path(path).suffix == ".onnx" else load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from None
    with torch.device("meta"):  # no numbers drawn from the caller's generator
        network = GoogLeNet(GoogLeNetConfig(classes=_class_count(state, "loss3/classifier.weight")))
    _load(network, state, caffe_names(), source=str(path))
    conv1 = network.state_dict()["trunk.conv1.conv.weight"]  # [64, 3, 7, 7], BGR
    conv1.copy_(conv1.flip(1))
    return network.eval(), CAFFE_INPUT


def load_torchvision(
    state: Mapping[str, Tensor], source: str = "the torchvision state dict"
) -> tuple[GoogLeNet, InputConvention]:
    """Load the weights of torchvision's googlenet.py (batch normalisation, 3×3 for 5×5, pool4 2×2), in evaluation mode.

    Args:
        state: `torchvision.models.googlenet(...).state_dict()`; its auxiliary heads, if any, are left out.
        source: Name of the weights' origin, for messages.

    Raises:
        UserError: A tensor is missing, unknown or has another shape; the message names the source and the tensor.
    """
    state = {name: tensor for name, tensor in state.items() if not name.startswith(("aux1.", "aux2."))}
    classes = _class_count(state, "fc.weight")
    with torch.device("meta"):
        network = GoogLeNet(replace(TORCHVISION_VARIANT, classes=classes))
    names = torchvision_names(network)
    counters = [name for name in names.values() if name.endswith("num_batches_tracked")]  # old files have none
    _load(network, {name: torch.tensor(0) for name in counters} | state, names, source)
    return network.eval(), TORCHVISION_INPUT


def caffe_names() -> dict[str, str]:
    """Map the names of our tensors to Caffe's."""
    layers = {f"trunk.{ours}.conv": theirs for ours, theirs in _CAFFE_STEM.items()}
    for module in _MODULES:
        for ours, theirs in _CAFFE_BRANCHES.items():
            layers[f"trunk.inception_{module}.{ours}.conv"] = f"inception_{module}/{theirs}"
    layers["fc"] = "loss3/classifier"
    return {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in layers.items() for part in ("weight", "bias")}


def torchvision_names(network: GoogLeNet) -> dict[str, str]:
    """Map the names of the network's tensors, without those of the auxiliary heads, to torchvision's."""
    layers = {f"trunk.{ours}": theirs for ours, theirs in _TORCHVISION_STEM.items()}
    for module in _MODULES:
        for ours, theirs in _TORCHVISION_BRANCHES.items():
            layers[f"trunk.inception_{module}.{ours}"] = f"inception{module}.{theirs}"
    names = {"fc.weight": "fc.weight", "fc.bias": "fc.bias"}
    for ours in network.trunk.state_dict(prefix="trunk."):
        layer, kind, part = ours.rsplit(".", 2)
        names[ours] = f"{layers[layer]}.{'bn' if kind == 'norm' else kind}.{part}"
    return names


def _class_count(state: Mapping[str, Tensor], name: str) -> int:
    """Number of classes of the last layer, or 1 where it is missing, which loading reports then."""
    return len(state[name]) if name in state and state[name].dim() and len(state[name]) else 1


def _load(network: GoogLeNet, state: Mapping[str, Tensor], names: Mapping[str, str], source: str) -> None:
    """Copy every tensor of `names` into the network.

    Raises:
        UserError: A tensor is missing, unknown or has another shape; the message names the source and the first one.
    """
    own = network.state_dict()
    problems = [f"has no tensor {theirs}" for theirs in names.values() if theirs not in state]
    problems += [f"has a tensor {name} that this network lacks" for name in state if name not in set(names.values())]
    problems += [
        f"has {theirs} of shape {list(state[theirs].shape)}, expected {list(own[ours].shape)}"
        for ours, theirs in names.items()
        if theirs in state and state[theirs].shape != own[ours].shape
    ]
    if problems:
        more = f" (and {len(problems) - 1} more such problems)" if len(problems) > 1 else ""
        raise UserError(f"{source} {problems[0]}{more}")
    network.to_empty(device="cpu").to(memory_format=torch.channels_last)
    own = network.state_dict()
    for ours, theirs in names.items():
        own[ours].copy_(state[theirs])
