"""A network's weights in the files of others, from which the package loads them."""

from __future__ import annotations

from torch import Tensor

from detector.network.googlenet import GoogLeNet
from detector.network.pretrained import caffe_names, torchvision_names


def to_caffe(network: GoogLeNet) -> dict[str, Tensor]:
    """The network's tensors under Caffe's names, conv1 for BGR; without auxiliary heads."""
    own = network.state_dict()
    state = {theirs: own[ours].clone().contiguous() for ours, theirs in caffe_names().items()}
    state["conv1/7x7_s2.weight"] = state["conv1/7x7_s2.weight"].flip(1).contiguous()
    return state


def to_torchvision(network: GoogLeNet) -> dict[str, Tensor]:
    """The network's tensors under torchvision's names; without auxiliary heads."""
    own = network.state_dict()
    return {theirs: own[ours].clone().contiguous() for ours, theirs in torchvision_names(network).items()}
