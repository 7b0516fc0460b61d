"""Regions cut from maps: the trunk runs once per image, the last Inception modules once per region.

In: image [H, W, 3] uint8 RGB, boxes [N, 4] px.  Out: logits [N, K + 1] and box offsets [N, K, 4].
R-CNN passes every region through all layers. This cuts regions from a layer's map instead, as Fast R-CNN does (arXiv
1504.08083), by RoIAlign (arXiv 1703.06870), so that a region costs pool4 and modules 5a and 5b alone, a twelfth of the
network. The image is scaled to several sizes, and each region is cut at the scale where it is nearest to 192 px
(SPP-net, arXiv 1406.4729), because the filters expect objects of one size. It is cut before pool4, so that pool4's
maximum sees the same statistics as in a warped region.
Beyond the paper; the warp is the reference. A region shows the same: its box with R-CNN's context around it.

N boxes, C channels, h × w cells of a map, G × G cells of a region.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.data.image import Image
from detector.device import upload
from detector.network.folding import fold_batch_norm
from detector.network.googlenet import GoogLeNet, Heads
from detector.network.input import InputConvention, network_input
from detector.network.quantised import Ranges, prepare_trunk
from detector.regions.warp import RegionConfig, context_windows
from detector.threads import spread
from detector.views import View
from proposals.boxes import Boxes, check_boxes
from proposals.compiling import compiled
from proposals.settings import settings_hash

STRIDE = 16  # px of the image from one cell of inception_4e to the next
FIRST_CENTRE = 14.5  # px: centre of the first cell; pools without padding reach to the right of their corner
AT_A_TIME = 256  # windows interpolated at a time, to bound the memory
LAST_IMAGE_LAYER, FIRST_REGION_LAYER = "inception_4e", "pool4"  # run once per image; from pool4 on once per region

Maps = Callable[[int], tuple[Tensor, tuple[float, float]]]
"""Level of the pyramid -> the trunk's map [1, C, h, w], and the scale of that level in x and y."""


@dataclass(frozen=True)
class SharedConfig:
    """The image pyramid that the trunk sees, and the size of a region cut from its maps.

    Attributes:
        pyramid: Scales of the image: sides of the squares whose area it is resized to, px.
        region: Size at which regions are cut, px. The level is chosen where the root of a region's area is nearest.
        grid: Side G of a region in cells. A warped region has 14 before pool4; 10 cost half as much.
    """

    pyramid: list[int] = field(default_factory=lambda: [160, 224, 320, 448, 640])
    region: int = 192
    grid: int = 10

    def __post_init__(self) -> None:
        if not self.pyramid or min(self.pyramid) < 64:
            raise ValueError(f"shared.pyramid must be one or more sides of at least 64 px, not {self.pyramid}")
        if self.region < 1:
            raise ValueError(f"shared.region must be at least 1 px, not {self.region}")
        if not 2 <= self.grid <= 28:
            raise ValueError(f"shared.grid must be in 2..28, not {self.grid}")

    def __hash__(self) -> int:
        return settings_hash(self)


def resize_to_area(image: Image, side: int) -> tuple[Image, tuple[float, float]]:
    """Resize an image to the area of a square of that side; returns it and the scale in x and y."""
    height, width, _ = image.shape
    scale = side / math.sqrt(height * width)
    size = max(32, round(width * scale)), max(32, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = np.asarray(cv2.resize(image, size, interpolation=method), dtype=np.uint8)
    return scaled, (size[0] / width, size[1] / height)


def choose_level(windows: Boxes, size: tuple[int, int], config: SharedConfig) -> NDArray[np.intp]:
    """Choose the level of the pyramid that each window is cut from.

    Args:
        windows: [N, 4] px in the image, context included.
        size: Height and width of the image, px.
        config: The pyramid.

    Returns:
        [N] positions in the pyramid.
    """
    area = (windows[:, 2] - windows[:, 0]) * (windows[:, 3] - windows[:, 1])
    fraction = np.sqrt(np.maximum(area, 1) / (size[0] * size[1]))  # of the level's side
    away = np.log(fraction[:, None] * np.array(config.pyramid)) - math.log(config.region)
    result: NDArray[np.intp] = np.abs(away).argmin(axis=1)
    return result


def map_coordinates(windows: Boxes, scale: tuple[float, float]) -> NDArray[np.float32]:
    """Convert windows [N, 4] px of the image to cells of a map, 0 in the middle of the first cell."""
    result: NDArray[np.float32] = ((windows * np.array(scale * 2) - FIRST_CENTRE) / STRIDE).astype(np.float32)
    return result


def map_side(side: int) -> int:
    """Cells of the map before pool4 along an axis of `side` px: conv1 at stride 2, then three pools."""
    cells_ = (side + 1) // 2
    for _ in range(3):
        cells_ = -(-(cells_ - 3) // 2) + 1
    return cells_


def cut_regions(maps: Maps, boxes: Boxes, size: tuple[int, int], regions: RegionConfig, config: SharedConfig) -> Tensor:
    """Cut each box, with its context, from the trunk's maps.

    Args:
        maps: Gives the map of a level; it is called once for each level that is needed.
        boxes: [N, 4] px in the image, at least one.
        size: Height and width of the image, px.
        regions: Context around a box.
        config: The pyramid and G.

    Returns:
        [N, C, G, G] float32, channels last in memory.

    Raises:
        ValueError: a box is not finite, has no area or lies outside the image.
    """
    check_boxes(boxes, size[1], size[0])
    windows = context_windows(boxes, regions)
    levels = choose_level(windows, size, config)
    order = np.argsort(levels, kind="stable")
    parts = []
    for level in np.unique(levels):
        features, scale = maps(int(level))
        parts.append(roi_align(features, map_coordinates(windows[levels == level], scale), config.grid))
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts)[upload(np.argsort(order), parts[0].device)]


def roi_align(features: Tensor, windows: NDArray[np.float32], grid: int) -> Tensor:
    """RoIAlign: each cell of a region is the map at the cell's centre, bilinear; 0 more than a cell outside the map.

    Equals `torchvision.ops.roi_align(..., sampling_ratio=1, aligned=True)` of windows shifted by half a cell, and takes
    a tenth of its time on an AVX-512 core (64 regions of 832 channels, G = 10: 3 against 30 ms). More samples per cell
    change nothing where a region has about as many cells as the map below it. On another device the four cells around
    each sample are gathered. With gradients rows and columns are interpolated by two matrix products, whose gradients
    are matrix products too; torchvision's add up value by value.

    Args:
        features: [1, C, h, w].
        windows: [N, 4] in cells, 0 in the middle of the first.
        grid: G.

    Returns:
        [N, C, G, G] float32 (under autocast its type where products do it), channels last in memory.
    """
    plane = features[0].permute(1, 2, 0)  # [h, w, C]
    if features.device.type != "cpu" or (features.requires_grad and torch.is_grad_enabled()):
        if not torch.is_autocast_enabled(features.device.type):
            plane = plane.float()
        learns = features.requires_grad and torch.is_grad_enabled()
        interpolate = _interpolate if learns else _gather
        parts = [interpolate(plane, part, grid) for part in torch.split(upload(windows, features.device), AT_A_TIME)]
        return torch.cat(parts).permute(0, 3, 1, 2)
    plane = plane.float().contiguous()
    aligned = torch.empty(len(windows), grid, grid, features.shape[1])
    spread(partial(_align, plane.numpy()), [windows, aligned.numpy()])
    return aligned.permute(0, 3, 1, 2)


def _interpolate(plane: Tensor, windows: Tensor, grid: int) -> Tensor:
    """Map [h, w, C], windows [N, 4] -> [N, G, G, C]."""
    height, width, channels = plane.shape
    rows = _weights(windows[:, 1], windows[:, 3], grid, height)  # [N, G, h]
    columns = _weights(windows[:, 0], windows[:, 2], grid, width)  # [N, G, w]
    rows_of_cells = (rows.flatten(0, 1) @ plane.reshape(height, width * channels)).view(-1, grid, width, channels)
    return columns[:, None] @ rows_of_cells  # [N, 1, G, w] @ [N, G, w, C]


def _gather(plane: Tensor, windows: Tensor, grid: int) -> Tensor:
    """Map [h, w, C], windows [N, 4] -> [N, G, G, C]: the four cells around each sample, which reads few of a map's."""
    height, width, channels = plane.shape
    cells, shape = plane.reshape(height * width, channels), (len(windows), grid, grid)
    result = torch.zeros(*shape, channels, dtype=plane.dtype, device=plane.device)
    for row, share_y in _taps(windows[:, 1], windows[:, 3], grid, height):
        for column, share_x in _taps(windows[:, 0], windows[:, 2], grid, width):
            index = row[:, :, None] * width + column[:, None, :]  # [N, G, G]
            taken = cells.index_select(0, index.flatten()).view(*shape, channels)
            result.addcmul_(taken, (share_y[:, :, None] * share_x[:, None, :])[..., None].to(plane.dtype))
    return result


def _taps(start: Tensor, stop: Tensor, grid: int, length: int) -> list[tuple[Tensor, Tensor]]:
    """The two rows of a map around each cell of a window, and their weights: [N], [N] -> twice ([N, G], [N, G])."""
    steps = torch.arange(grid, device=start.device) + 0.5
    middle = start[:, None] + (stop - start)[:, None] / grid * steps  # [N, G]
    inside = (middle >= -1) & (middle <= length)
    position = middle.clamp(0, length - 1)
    low = position.long()
    share = position - low
    return [(low, (1 - share) * inside), ((low + 1).clamp(max=length - 1), share * inside)]


def _weights(start: Tensor, stop: Tensor, grid: int, length: int) -> Tensor:
    """Weight of each row of a map in each cell of a window: [N], [N] -> [N, G, length]."""
    steps = torch.arange(grid, device=start.device) + 0.5
    middle = start[:, None] + (stop - start)[:, None] / grid * steps  # [N, G]
    inside = (middle >= -1) & (middle <= length)
    away = (middle.clamp(0, length - 1)[:, :, None] - torch.arange(length, device=start.device)).abs()
    return (1 - away).clamp(min=0) * inside[:, :, None]


@dataclass(frozen=True, eq=False)
class ImageMaps:
    """The trunk's maps of an image.

    Attributes:
        size: Height and width of the image, px.
        levels: Level of the pyramid -> the map [1, C, h, w] float32, and the scale of that level in x and y.
    """

    size: tuple[int, int]
    levels: dict[int, tuple[Tensor, tuple[float, float]]]


class SharedNetwork:
    """A network whose trunk sees whole images and whose last modules see regions, ready to score.

    Args:
        network: Network of K + 1 logits; it is not changed, a copy scores.
        convention: Scaling of its input.
        regions: Context around a box.
        config: Image pyramid and size of a region.
        device: Device that it runs on.
        precision: Number format of its trunk, see `detector.network.quantised.prepare_trunk`.
        ranges: For int8, the ranges of the trunk's activations.

    Raises:
        DeviceError: There is no int8 for this network.
    """

    def __init__(
        self,
        network: GoogLeNet,
        convention: InputConvention,
        regions: RegionConfig,
        config: SharedConfig,
        device: torch.device,
        precision: str = "float32",
        ranges: Ranges | None = None,
    ) -> None:
        self.convention, self.regions, self.config = convention, regions, config
        self.device = device
        self.network = fold_batch_norm(copy.deepcopy(network).eval()).to(device)
        self.network.trunk, self.precision = prepare_trunk(
            self.network.trunk, precision, device, ranges, cut=(LAST_IMAGE_LAYER,)
        )

    def trunk(self, views: Sequence[View]) -> list[ImageMaps]:
        """Run the trunk on images, once for each level of the pyramid that one of an image's boxes is cut from.

        Images that have the same size at a level pass together. The pixels seen are added to the views' trunk_pixels.
        A view keeps its maps, so that a level is made once, however often boxes are cut from it.

        Args:
            views: Images, and all boxes that will be cut from their maps.

        Returns:
            The maps of each image.
        """
        found = [
            ImageMaps((view.image.shape[0], view.image.shape[1]), view.kept.setdefault(self, {})) for view in views
        ]
        alike: dict[tuple[int, tuple[int, ...]], list[tuple[int, Image, tuple[float, float]]]] = {}
        for index, view in enumerate(views):
            levels = choose_level(context_windows(view.boxes, self.regions), found[index].size, self.config)
            for level in sorted({*levels.tolist()} - found[index].levels.keys()):
                shown, scale = resize_to_area(view.image, self.config.pyramid[level])
                view.count("trunk_pixels", shown.shape[0] * shown.shape[1])
                alike.setdefault((level, shown.shape), []).append((index, shown, scale))
        for (level, _), images in alike.items():
            x = network_input(np.stack([shown for _, shown, _ in images]), self.convention, self.device)
            features = self.network.trunk_slice(None, FIRST_REGION_LAYER)(x.to(self.precision)).float()
            for (index, _, scale), own in zip(images, torch.split(features, 1), strict=True):
                found[index].levels[level] = own, scale
        return found

    def cut(self, maps: ImageMaps, boxes: Boxes) -> Tensor:
        """Cut some of an image's boxes [M, 4] px from its maps -> [M, C, G, G] float32."""
        return cut_regions(maps.levels.__getitem__, boxes, maps.size, self.regions, self.config)

    def heads(self, features: Tensor) -> Heads:
        """Run the last modules on regions: [M, C, G, G] -> logits [M, K + 1] and box offsets [M, K, 4]."""
        return self.network.heads(self.network.trunk_slice(FIRST_REGION_LAYER)(features.to(self.precision)))


@compiled(error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
def _align(plane: Any, windows: Any, result: Any) -> None:
    """Map [h, w, C], windows [N, 4] -> [N, G, G, C]."""
    height, width, channels = plane.shape
    grid = result.shape[1]
    for n in range(len(windows)):
        x1, y1 = windows[n, 0], windows[n, 1]
        step_x, step_y = (windows[n, 2] - x1) / grid, (windows[n, 3] - y1) / grid
        for row in range(grid):
            for column in range(grid):
                y = y1 + step_y * (row + np.float32(0.5))
                x = x1 + step_x * (column + np.float32(0.5))
                if y < -1 or y > height or x < -1 or x > width:
                    for channel in range(channels):
                        result[n, row, column, channel] = 0
                    continue
                y, x = max(y, np.float32(0)), max(x, np.float32(0))
                top, left = min(int(y), height - 1), min(int(x), width - 1)
                bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
                down = min(y - top, np.float32(1)) if bottom > top else np.float32(0)
                along = min(x - left, np.float32(1)) if right > left else np.float32(0)
                a, b = (1 - down) * (1 - along), (1 - down) * along
                c, d = down * (1 - along), down * along
                for channel in range(channels):
                    result[n, row, column, channel] = (
                        a * plane[top, left, channel]
                        + b * plane[top, right, channel]
                        + c * plane[bottom, left, channel]
                        + d * plane[bottom, right, channel]
                    )
