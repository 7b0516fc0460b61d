"""Fine-tuning with one pass of the trunk per image: regions are cut from its maps (mode "shared").

In: batches of whole images with the boxes of their regions.  Out: as regions.py.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from detector.network.googlenet import GoogLeNet
from detector.network.input import network_input
from detector.regions.maps import FIRST_REGION_LAYER, cut_regions, map_side
from detector.training.regions import FineTuning
from detector.training.task import Batch

CANVAS = 32  # px; the side of a canvas is a multiple of this


class SharedTuning(FineTuning):
    """The `Task` of classifying regions that are cut from the maps of whole images."""

    def features(self, network: GoogLeNet, batch: Batch, *, learn: bool = False) -> Tensor:
        """Compute the trunk's last maps of all windows, [I · R, 1024, g, g]; the arguments are those of FineTuning."""
        layers = [name for name, _ in network.trunk.named_children()]
        first = self.config.train_from if learn and self.config.train_from != "conv1" else layers[0]
        split = min(first, FIRST_REGION_LAYER, key=layers.index)
        frozen, below = network.trunk_slice(None, split).eval(), network.trunk_slice(split, FIRST_REGION_LAYER)
        together = self.ranks.device.type == "cuda"
        config = self.classifier.shared
        assert config is not None

        levels = batch[: len(config.pyramid)]
        extents, sizes, region_sizes, boxes = batch[len(levels) : len(levels) + 4]
        # Of each image: level -> its map, and the scale of that level in x and y.
        maps: list[dict[int, tuple[Tensor, tuple[float, float]]]] = [{} for _ in boxes]
        for level, scaled in enumerate(levels):
            for members in _passes(extents[:, level], together=together):
                there = extents[members, level]
                rows, columns = there.amax(dim=0).tolist()
                squares = scaled[members, :rows, :columns].numpy()
                x = network_input(squares, self.classifier.convention, self.ranks.device)
                if together:
                    x = _on_canvas(x, there, config.pyramid[level])
                with torch.no_grad():
                    x = frozen(x)
                for image, features in zip(members, torch.split(below(x), 1), strict=True):
                    (height, width), (rows, columns) = sizes[image].tolist(), extents[image, level].tolist()
                    features = features[:, :, : map_side(rows), : map_side(columns)]
                    maps[image][level] = features, (columns / width, rows / height)
        parts = []
        for own, some, size, region in zip(maps, boxes.numpy(), sizes.tolist(), region_sizes.tolist(), strict=True):
            shared = replace(config, region=region)
            parts.append(cut_regions(own.__getitem__, some, tuple(size), self.classifier.regions, shared))
        x = torch.cat(parts).contiguous(memory_format=torch.channels_last)
        result: Tensor = network.trunk_slice(FIRST_REGION_LAYER)(x)
        return result


def _passes(extents: Tensor, *, together: bool) -> list[list[int]]:
    """Which images of a level pass the trunk together: all of them, or those of equal size; none of height 0."""
    sizes = [tuple(row) for row in extents.tolist()]
    if together:
        return [list(range(len(sizes)))] if any(height for height, _ in sizes) else []
    return [[i for i, other in enumerate(sizes) if other == size] for size in sorted(set(sizes) - {(0, 0)})]


def _on_canvas(x: Tensor, extents: Tensor, side: int) -> Tensor:
    """Put images [I, 3, h, w] into the upper left corners of equal squares that are 0 elsewhere.

    cuDNN plans each new shape anew, which takes a GPU longer than the pass, so all batches of a level share a shape.
    The surroundings of an image are 0 before the first layer only; for detection they are 0 before every layer.

    Args:
        x: Images of about the area of a square of `side` px, normalised.
        extents: [I, 2], height and width of each.
        side: Side of that square, px.
    """
    length = int(-(-max(*x.shape[2:], 1.25 * side) // CANVAS) * CANVAS)  # 1.25: aspect ratios up to 3:2
    canvas = x.new_zeros(len(x), 3, length, length).contiguous(memory_format=torch.channels_last)
    for square, image, (rows, columns) in zip(canvas, x, extents.tolist(), strict=True):
        square[:, :rows, :columns] = image[:, :rows, :columns]
    return canvas
