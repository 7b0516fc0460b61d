"""Narrow networks and small pictures that several test files use."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from detector.checkpoint import RegionClassifier
from detector.data.ground_truth import ClassTable
from detector.data.image import Image
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention
from detector.regions.maps import SharedConfig
from detector.regions.warp import RegionConfig

CLASSES = ClassTable(("square", "disc"), (None, None), (1, 2))
CONVENTION = InputConvention(std=(60.0, 60.0, 60.0))


def make_network(norm: str = "lrn", inception: str = "reduced") -> GoogLeNet:
    """A network of seven outputs; batch normalisation with statistics that are not the initial ones."""
    torch.manual_seed(0)
    config = GoogLeNetConfig(
        classes=7, width=0.25, norm=norm, inception=inception, initialisation="xavier", dropout=0.0
    )
    network = GoogLeNet(config).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    return network


def shared_classifier(shared: SharedConfig) -> RegionClassifier:
    """A classifier of two classes that cuts regions from maps, with probabilities that differ."""
    torch.manual_seed(0)
    network = GoogLeNet(GoogLeNetConfig(classes=3, width=0.25, norm="none", initialisation="xavier")).eval()
    with torch.no_grad():
        network.fc.weight.mul_(20)
    return RegionClassifier(network, CONVENTION, RegionConfig(64, 4), CLASSES, shared=shared)


def regressing_classifier(seed: int, shared: SharedConfig | None = None) -> RegionClassifier:
    """A classifier of two classes with box regression, with probabilities that differ."""
    torch.manual_seed(seed)
    network = GoogLeNet(GoogLeNetConfig(classes=3, width=0.25, norm="none", initialisation="xavier")).eval()
    with torch.no_grad():
        network.fc.weight.mul_(20)
    layer = nn.Linear((9 if shared else 1) * network.fc.in_features, 8)
    network.set_regression(layer)
    return RegionClassifier(network, CONVENTION, RegionConfig(64, 4), CLASSES, shared=shared)


def picture() -> Image:
    """Blocks of random colours, [90, 120, 3]."""
    blocks = np.random.default_rng(0).integers(0, 256, (9, 12, 3))
    return blocks.repeat(10, axis=0).repeat(10, axis=1).astype(np.uint8)
