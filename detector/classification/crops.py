"""Cut the parts of an image that a classifier sees at test: 1, 10 or 144 crops (paper §7).

In: image [H, W, 3] uint8 RGB.  Out: [N, 224, 224, 3] uint8 RGB.
144 = 4 scales (shorter side 256, 288, 320, 352) × 3 squares along the longer side × (4 corners, the centre, the whole
square resized) × mirror. What the paper leaves open: the order (ours: scale, square, crop, mirror; a mean does not see
it); how to resize (ours: bilinear with antialiasing); the scale of its 1 and 10 crops (ours: shorter side 256, the 10
of the middle square, as Krizhevsky's). A network of another input size gets the same geometry in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from detector.data.image import Image

SIZE = 224  # px, the paper's input
SCALES = (256, 288, 320, 352)  # px, at that input
COUNTS = (1, 10, 144)


class Crop(NamedTuple):
    """A square of the image resized to a shorter side of `scale`.

    Attributes:
        scale: Shorter side of the resized image, px.
        left: Left edge of the square, px.
        top: Top edge of the square, px.
        side: Side of the square, px; a square of another side than the network's input is resized to that.
        mirrored: Whether left and right are exchanged after cutting.
    """

    scale: int
    left: int
    top: int
    side: int
    mirrored: bool


def plan(count: int, width: int, height: int, size: int = SIZE) -> list[Crop]:
    """List the crops of an image of a given size, in order; in a square image some occur more than once.

    Args:
        count: Number of crops: 1, 10 or 144.
        width: Width of the image, px.
        height: Height of the image, px.
        size: Side of the network's input, px.

    Raises:
        ValueError: Another count, or an image without pixels.
    """
    if count not in COUNTS:
        raise ValueError(f"crops must be one of {', '.join(map(str, COUNTS))}, not {count}")
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} px has no crops")
    scales = [round(scale * size / SIZE) for scale in SCALES]
    if count == 144:
        squares = [
            (scale, *square, *crop)
            for scale in scales
            for square in _squares(scale, width, height)
            for crop in (*_five(scale, size), (0, 0, scale))
        ]
    else:
        square = _squares(scales[0], width, height)[1]
        five = _five(scales[0], size)
        squares = [(scales[0], *square, *crop) for crop in (five if count == 10 else five[-1:])]
    mirrors = (False,) if count == 1 else (False, True)
    return [
        Crop(scale, left + x, top + y, side, mirrored)
        for scale, left, top, x, y, side in squares
        for mirrored in mirrors
    ]


def cut(image: Image, crops: Sequence[Crop], size: int = SIZE) -> NDArray[np.uint8]:
    """Cut crops out of an image and resize them to the network's input; [H, W, 3] RGB -> [N, size, size, 3]."""
    picture = PIL.Image.fromarray(image)
    resized: dict[int, Image] = {}
    result = np.empty((len(crops), size, size, 3), np.uint8)
    for position, crop in enumerate(crops):
        if crop.scale not in resized:
            resized[crop.scale] = np.asarray(_resized(picture, resized_size(crop.scale, *picture.size)))
        square = resized[crop.scale][crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
        if crop.side != size:
            square = np.asarray(_resized(PIL.Image.fromarray(square), (size, size)))
        result[position] = square[:, ::-1] if crop.mirrored else square
    return result


def resized_size(scale: int, width: int, height: int) -> tuple[int, int]:
    """Return width and height, px, of an image resized so that its shorter side is `scale`."""
    shorter = min(width, height)
    return max(scale, round(scale * width / shorter)), max(scale, round(scale * height / shorter))


def _squares(scale: int, width: int, height: int) -> list[tuple[int, int]]:
    """Left and top of the first, middle and last square along the longer side."""
    new_width, new_height = resized_size(scale, width, height)
    spare_x, spare_y = new_width - scale, new_height - scale
    return [(0, 0), (spare_x // 2, spare_y // 2), (spare_x, spare_y)]


def _five(scale: int, size: int) -> list[tuple[int, int, int]]:
    """Left, top and side of the corners (top left, top right, bottom left, bottom right) and the centre of a square."""
    end = scale - size
    return [(x, y, size) for x, y in ((0, 0), (end, 0), (0, end), (end, end), (end // 2, end // 2))]


def _resized(picture: PIL.Image.Image, size: tuple[int, int]) -> PIL.Image.Image:
    return picture if picture.size == size else picture.resize(size, PIL.Image.Resampling.BILINEAR)
