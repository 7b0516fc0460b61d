"""`warp` on a GPU: the image crosses to the device once, and no region ever does.

In: image [H, W, 3] on the device, boxes [N, 4] px.  Out: regions [N, S, S, 3] uint8 on the device.
The pixels and weights of each sample are those of `warp`'s own kernel, computed in float64 on the processor: rounded to
float32 a sample on the image's border could fall outside. They cross too, 11 of a region's 151 KB at S = 224 and two
taps. The sums run over the same pixels in another order, so that a value may differ by one grey level.

N boxes, S side of the square, T taps of a sample, H × W the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.device import upload
from detector.regions.warp import RegionConfig, axis_samples, context_windows
from proposals.boxes import Boxes
from proposals.compiling import compiled

AT_A_TIME = 64  # windows sampled at a time, to bound the memory: 103 MB at S = 224 (sums, values taken, indices)


def warp_on_device(image: Tensor, boxes: Boxes, config: RegionConfig, fill: tuple[float, float, float]) -> Tensor:
    """Cut the boxes with their context out of an image and warp each to a square, as `warp` does.

    Args:
        image: [H, W, 3] float32 RGB in 0..255, on any device.
        boxes: [N, 4] px, checked: each of positive width and height and at least partly inside the image.
        config: Size and context of the square.
        fill: RGB value, 0..255, outside the image.

    Returns:
        [N, S, S, 3] uint8 on the image's device, within one grey level of `warp`.
    """
    windows = context_windows(boxes, config)
    size, order = config.size, np.argsort((windows[:, 2:] - windows[:, :2]).max(axis=1, initial=0), kind="stable")
    regions = torch.empty(len(boxes), size, size, 3, dtype=torch.uint8, device=image.device)
    outside = upload(np.array(fill).round().astype(np.float32), image.device)
    for start in range(0, len(boxes), AT_A_TIME):
        some = order[start : start + AT_A_TIME]  # of like numbers of taps: a small box does not pay for a large one
        regions[upload(some, image.device)] = _sample(image, windows[some], size, outside)
    return regions


def _sample(image: Tensor, windows: NDArray[np.float64], size: int, outside: Tensor) -> Tensor:
    """Image [H, W, 3], windows [N, 4], fill [3] -> regions [N, S, S, 3] uint8."""
    height, width, _ = image.shape
    pixels = image.reshape(height * width, 3)
    columns, across, there_x = _axis(windows[:, 0], windows[:, 2], size, width, image.device)
    rows, down, there_y = _axis(windows[:, 1], windows[:, 3], size, height, image.device)
    total = torch.zeros(len(windows), size, size, 3, device=image.device)
    for row, share_y in zip(rows.unbind(1), down.unbind(1), strict=True):  # [N, S]
        for column, share_x in zip(columns.unbind(1), across.unbind(1), strict=True):
            index = row[:, :, None] * width + column[:, None, :]  # [N, S, S]
            taken = pixels.index_select(0, index.flatten()).view(total.shape)
            total.addcmul_(taken, (share_y[:, :, None] * share_x[:, None, :])[..., None])
    there = (there_y[:, :, None] & there_x[:, None, :])[..., None]
    return torch.where(there, (total + 0.5).floor(), outside).to(torch.uint8)


def _axis(
    starts: NDArray[np.float64], stops: NDArray[np.float64], size: int, length: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels [N, T, S], their weights [N, T, S], and which samples are inside the image [N, S], on the device."""
    step = float((stops - starts).max()) / size
    taps = max(2, min(int(min(step, length)) + 2, length)) if step > 2 else 2
    first, inside = np.zeros((len(starts), size), np.int64), np.zeros((len(starts), size), np.bool_)
    shares = np.zeros((len(starts), taps, size), np.float32)
    _fill(starts, stops, length, first, shares, inside)
    pixels = np.minimum(first[:, None] + np.arange(taps)[:, None], length - 1)  # beyond the end the weight is 0
    return upload(pixels, device), upload(shares, device), upload(inside, device)


@compiled(error_model="numpy")
def _fill(starts: Any, stops: Any, length: int, first: Any, shares: Any, inside: Any) -> None:
    """The samples of one axis of all windows: [N], [N] -> [N, S], [N, T, S], [N, S]."""
    for n in range(len(starts)):
        begin, end, _ = axis_samples(starts[n], stops[n], first.shape[1], length, first[n], shares[n])
        for s in range(begin, end):
            inside[n, s] = True
