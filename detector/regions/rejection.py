"""Early rejection: a small layer on the trunk's maps tells background apart before modules 5a and 5b are run.

In: the maps of an image, boxes [N, 4] px.  Out: a logit [N] that a region holds an object.
Nine tenths of the regions of R-CNN are background. The layer projects the cells of the maps to a few channels, once per
image, cuts a coarse grid of them for each box, and has a hidden layer over the grid: a thousandth of what the modules
cost. It is trained to predict the object probability of the network that it belongs to (detector.training.rejection),
so that it depends on those weights, whose fingerprint is kept with it.
Beyond the paper. The idea is the cascade's (Viola and Jones, CVPR 2001): reject cheaply what is clearly background.

N boxes, P channels, G × G cells of a region.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from detector.regions.maps import Maps, SharedConfig, cut_regions
from detector.regions.warp import RegionConfig
from proposals.boxes import Boxes


@dataclass(frozen=True)
class RejectionLayerConfig:
    """The architecture of a rejection layer.

    Attributes:
        channels: Channels P that the maps are projected to.
        grid: Side G of a region in cells.
        hidden: Size of the hidden layer.
    """

    channels: int = 64
    grid: int = 5
    hidden: int = 32

    def __post_init__(self) -> None:
        for name in ("channels", "grid", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"layer.{name} must be at least 1, not {getattr(self, name)}")


class RejectionLayer(nn.Module):
    """Maps and boxes -> logits of the probability that a region holds an object.

    Args:
        depth: Channels of the maps.
        config: The architecture.
    """

    def __init__(self, depth: int, config: RejectionLayerConfig) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Conv2d(depth, config.channels, 1)
        self.hidden = nn.Linear(config.channels * config.grid**2, config.hidden)
        self.out = nn.Linear(config.hidden, 1)

    def forward(
        self, maps: Maps, boxes: Boxes, size: tuple[int, int], regions: RegionConfig, shared: SharedConfig
    ) -> Tensor:
        """Score the boxes of an image.

        Args:
            maps: Gives the map of a level of the pyramid.
            boxes: [N, 4] px, at least one.
            size: Height and width of the image, px.
            regions: Context around a box.
            shared: The pyramid.

        Returns:
            [N] logits.
        """

        def projected(level: int) -> tuple[Tensor, tuple[float, float]]:
            features, scale = maps(level)
            return F.relu(self.project(features)), scale

        cells = cut_regions(projected, boxes, size, regions, replace(shared, grid=self.config.grid))  # [N, P, G, G]
        result: Tensor = self.out(F.relu(self.hidden(cells.flatten(1))))[:, 0]
        return result
