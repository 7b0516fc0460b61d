"""Region features from one pass over the image: the trunk runs once, the last Inception modules on each region.

In: image [H, W, 3] uint8 RGB, boxes [N, 4] px.  Out: logits [N, K + 1].
R-CNN passes every region through all layers; this cuts regions out of a layer's map instead, as Fast R-CNN does (arXiv
1504.08083), by RoIAlign (arXiv 1703.06870), and pays per region for pool4 and modules 5a and 5b alone, a twelfth of the
network. Cut before pool4, what they see is made as in a warped region: maxima, where averages mean less to them.
Beyond the paper; the warp is the reference. What a region shows is the same: its box with R-CNN's context around it.

N boxes, C channels, h × w the map, G the side of what is cut out of it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import roi_align

from detector.data.image import Image
from detector.folding import fold_batch_norm
from detector.googlenet import GoogLeNet, InputConvention
from detector.lrn import spread
from detector.regions import RegionConfig, context_windows, network_input
from proposals.boxes import Boxes

STRIDE = 16  # px of the image from one cell of inception_4e to the next
FIRST = 14.5  # px: where the middle of the first cell is; pools without padding look to the right of their corner
ABOVE = "pool4"  # the trunk runs once an image up to and without this; from it on once a region
SAMPLES = 2  # of a cell, each way


@dataclass(frozen=True)
class SharedConfig:
    """How an image is shown to the trunk, and how large a region's cut-out is.

    Attributes:
        short: the image's shorter side is scaled to this, px.
        long: unless the longer one would then exceed this, px.
        grid: G, cells; 14 is what pool4 sees of a warped region.
    """

    short: int = 448
    long: int = 768
    grid: int = 14

    def __post_init__(self) -> None:
        if not 64 <= self.short <= self.long:
            raise ValueError(f"shared: 64 <= short <= long must hold, not {self.short} and {self.long}")
        if not 2 <= self.grid <= 28:
            raise ValueError(f"shared.grid must be in 2..28, not {self.grid}")


def show(image: Image, config: SharedConfig) -> tuple[Image, tuple[float, float]]:
    """The image scaled for the trunk, and how many of its px a px of the original is, in x and in y."""
    height, width, _ = image.shape
    scale = min(config.short / min(height, width), config.long / max(height, width))
    size = max(32, round(width * scale)), max(32, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = np.asarray(cv2.resize(image, size, interpolation=method), dtype=np.uint8)
    return scaled, (size[0] / width, size[1] / height)


def cells(boxes: Boxes, scale: tuple[float, float], regions: RegionConfig) -> NDArray[np.float32]:
    """Boxes [N, 4] px of the original, with their context -> [N, 4] cells of the map, 0 in the middle of the first."""
    windows = context_windows(boxes, regions) * np.array(scale * 2)
    result: NDArray[np.float32] = ((windows - FIRST) / STRIDE).astype(np.float32)
    return result


def align(features: Tensor, windows: NDArray[np.float32], grid: int) -> Tensor:
    """RoIAlign: each cell of a window is the mean of 2 × 2 samples of the map, bilinear; 0 more than a cell outside.

    Equals `torchvision.ops.roi_align(..., sampling_ratio=2, aligned=True)` of windows half a cell further, which takes
    over where gradients are wanted or the map is on another device than the CPU.

    Args:
        features: [1, C, h, w].
        windows: [N, 4] in cells, 0 in the middle of the first.
        grid: G.

    Returns:
        [N, C, G, G] float32, channels last in memory.
    """
    if features.device.type != "cpu" or (features.requires_grad and torch.is_grad_enabled()):
        rois = torch.from_numpy(windows + np.float32(0.5)).to(features.device)
        result: Tensor = roi_align(features.float(), [rois], grid, 1.0, SAMPLES, True)
        return result.contiguous(memory_format=torch.channels_last)
    plane = features[0].permute(1, 2, 0).float().contiguous()  # [h, w, C]
    cut = torch.empty(len(windows), grid, grid, features.shape[1])
    spread(partial(_align, plane.numpy()), [windows, cut.numpy()])
    return cut.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class SharedMap:
    """What the trunk made of an image.

    Attributes:
        features: [1, C, h, w].
        scale: px of what it was shown for a px of the image, in x and in y.
    """

    features: Tensor
    scale: tuple[float, float]


class SharedNetwork:
    """A network in two parts, ready to score.

    Args:
        network: of K + 1 logits, set to evaluation mode; it is not changed.
        convention: how it wants its input scaled.
        regions: whose context a box gets.
        config: how it is shown images.
        device: where it runs.
        precision: what its trunk computes in.
    """

    def __init__(
        self,
        network: GoogLeNet,
        convention: InputConvention,
        regions: RegionConfig,
        config: SharedConfig,
        device: torch.device,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.convention, self.regions, self.config = convention, regions, config
        self.device, self.precision = device, precision
        self.network = copy.deepcopy(fold_batch_norm(network.eval())).to(device)
        self.network.trunk.to(precision)

    def look(self, image: Image) -> SharedMap:
        """Run the layers that an image needs once."""
        shown, scale = show(image, self.config)
        x = network_input(shown[None], self.convention, self.device).to(self.precision)
        return SharedMap(self.network.trunk_slice(None, ABOVE)(x), scale)

    def logits(self, seen: SharedMap, boxes: Boxes) -> Tensor:
        """Boxes [N, 4] px of the image -> [N, K + 1]."""
        cut = align(seen.features, cells(boxes, seen.scale, self.regions), self.config.grid)  # [N, C, G, G]
        return self.network.classify(self.network.trunk_slice(ABOVE)(cut.to(self.precision)))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def _align(plane: Any, windows: Any, result: Any) -> None:
    """Map [h, w, C], windows [N, 4] -> [N, G, G, C]."""
    height, width, channels = plane.shape
    grid = result.shape[1]
    for n in range(len(windows)):
        x1, y1 = windows[n, 0], windows[n, 1]
        step_x = (windows[n, 2] - x1) / (grid * SAMPLES)
        step_y = (windows[n, 3] - y1) / (grid * SAMPLES)
        for row in range(grid):
            for column in range(grid):
                cell = result[n, row, column]
                cell[:] = 0
                for sample in range(SAMPLES * SAMPLES):
                    y = y1 + step_y * (row * SAMPLES + sample // SAMPLES + np.float32(0.5))
                    x = x1 + step_x * (column * SAMPLES + sample % SAMPLES + np.float32(0.5))
                    if y < -1 or y > height or x < -1 or x > width:
                        continue
                    y, x = max(y, np.float32(0)), max(x, np.float32(0))
                    top, left = min(int(y), height - 1), min(int(x), width - 1)
                    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
                    down = min(y - top, np.float32(1)) if bottom > top else np.float32(0)
                    along = min(x - left, np.float32(1)) if right > left else np.float32(0)
                    a = (1 - down) * (1 - along) / (SAMPLES * SAMPLES)
                    b = (1 - down) * along / (SAMPLES * SAMPLES)
                    c = down * (1 - along) / (SAMPLES * SAMPLES)
                    d = down * along / (SAMPLES * SAMPLES)
                    for channel in range(channels):
                        cell[channel] += (
                            a * plane[top, left, channel]
                            + b * plane[top, right, channel]
                            + c * plane[bottom, left, channel]
                            + d * plane[bottom, right, channel]
                        )
