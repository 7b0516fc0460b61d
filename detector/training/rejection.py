"""Fit a rejection layer: it learns the object probability that its network gives to each region of an image.

In: for each image the trunk's maps, the boxes and the network's object probabilities.  Out: the layer, which needs the
maps alone. Labels play no part: the layer is to reject what its network would call background, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from detector.progress import progress
from detector.regions.maps import ImageMaps, SharedConfig
from detector.regions.rejection import RejectionLayer, RejectionLayerConfig
from detector.regions.warp import RegionConfig
from proposals.boxes import Boxes

BATCH = 2  # images per step


@dataclass(frozen=True, eq=False)
class Example:
    """An image of the fit.

    Attributes:
        maps: The trunk's maps, float16.
        boxes: [N, 4] px, at least one.
        objects: [N] float32, the network's probability that a region holds an object, of any class.
    """

    maps: ImageMaps
    boxes: Boxes
    objects: NDArray[np.float32]


def fit_rejection(
    examples: Sequence[Example],
    config: RejectionLayerConfig,
    regions: RegionConfig,
    shared: SharedConfig,
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    seed: int = 0,
) -> RejectionLayer:
    """Minimise the cross-entropy between the layer's probabilities and the network's, by AdamW with one cycle.

    Args:
        examples: At least one image.
        config: Architecture of the layer.
        regions: Context around a box.
        shared: The network's pyramid.
        epochs: Passes over the images.
        learning_rate: Highest learning rate of the cycle.
        weight_decay: AdamW's.
        seed: Seed of the initial weights and of the order of the images.
    """
    depth = next(iter(examples[0].maps.levels.values()))[0].shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = RejectionLayer(depth, config)
    with torch.no_grad():  # as if the maps had been scaled to a mean square of 1
        layer.project.weight /= _root_mean_square(examples[0].maps)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=learning_rate, weight_decay=weight_decay)
    steps = epochs * -(-len(examples) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
    generator = np.random.default_rng(seed)
    with progress(None, "rejection layer", "step", total=steps) as bar:
        for _ in range(epochs):
            order = generator.permutation(len(examples))
            for start in range(0, len(order), BATCH):
                optimiser.zero_grad()
                for index in order[start : start + BATCH]:
                    _loss(layer, examples[index], regions, shared).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                bar.update()
    return layer.eval()


def divergence(
    layer: RejectionLayer, examples: Sequence[Example], regions: RegionConfig, shared: SharedConfig
) -> float:
    """Return the mean Kullback-Leibler divergence of the layer's probabilities from the network's, in nats."""
    total = 0.0
    with torch.no_grad():
        for example in examples:
            objects = torch.from_numpy(example.objects)
            total += float(_loss(layer, example, regions, shared) - F.binary_cross_entropy(objects, objects))
    return total / len(examples)


def _loss(layer: RejectionLayer, example: Example, regions: RegionConfig, shared: SharedConfig) -> Tensor:
    levels = {level: (features.float(), scale) for level, (features, scale) in example.maps.levels.items()}
    maps = replace(example.maps, levels=levels)
    logits = layer(maps.levels.__getitem__, example.boxes, maps.size, regions, shared)
    return F.binary_cross_entropy_with_logits(logits, torch.from_numpy(example.objects))


def _root_mean_square(maps: ImageMaps) -> float:
    squares = torch.cat([features.float().square().flatten() for features, _ in maps.levels.values()])
    return float(squares.mean().sqrt().clamp_min(1e-6))
