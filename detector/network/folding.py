"""Batch normalisation folded into the convolutions: the same function at test for fewer operations.

In: a network with norm="batch".  Out: one with norm="none", each kernel times γ / √(variance + ε), its bias
β - mean · γ / √(variance + ε). At test batch normalisation is linear: its statistics depend on no batch.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from detector.network.googlenet import GoogLeNet


def fold_batch_norm(network: GoogLeNet) -> GoogLeNet:
    """Build the network without batch normalisation that computes the same in evaluation mode.

    Args:
        network: A network with norm="batch"; it is not changed, and its auxiliary heads are left out. Any other network
            has nothing to fold and is returned itself.
    """
    if network.config.norm != "batch":
        return network
    # Built without drawing weights that the next lines replace.
    with torch.device("meta"):
        folded = GoogLeNet(replace(network.config, norm="none", auxiliary_heads=0))
    folded.to_empty(device=network.fc.weight.device)
    state = {}
    for name, module in network.named_modules():
        if name.startswith("auxiliary"):
            continue
        if isinstance(getattr(module, "norm", None), nn.BatchNorm2d):
            norm, conv = module.norm, module.conv
            assert isinstance(norm, nn.BatchNorm2d)
            assert isinstance(conv, nn.Conv2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            state[f"{name}.conv.weight"], state[f"{name}.conv.bias"] = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
    own = network.state_dict()
    folded.load_state_dict({name: state.get(name, own.get(name)) for name in folded.state_dict()})
    return folded.to(memory_format=torch.channels_last).train(network.training)
