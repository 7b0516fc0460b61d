"""The colour spaces in which selective search segments an image, as its authors' MATLAB code quantises them.

In: image [H, W, 3] uint8 RGB (to_rgb makes it from other arrays).  Out: [H, W, C] uint8, C = 1 or 3, every channel
over the full range 0-255 (OpenCV's hue stops at 180).
Source: Uijlings et al., IJCV 2013, and the code released with it. Segmentation and histograms use the quantised image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from proposals.compiling import compiled

Image = NDArray[np.uint8]

# Linear light of each sRGB byte (IEC 61966-2-1).
_BYTES = np.arange(256) / 255
_LINEAR = np.where(_BYTES <= 0.04045, _BYTES / 12.92, ((_BYTES + 0.055) / 1.055) ** 2.4).astype(np.float32)

# sRGB primaries adapted to D50 (Bradford), the connection space of MATLAB's makecform("srgb2lab"); each row is divided
# by its sum, which is the D50 white, so that grey has a = b = 128 exactly.
_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
_XYZ = (_XYZ / _XYZ.sum(axis=1, keepdims=True)).astype(np.float32)


def to_rgb(image: NDArray[Any]) -> Image:
    """Convert an image array of any common form to [H, W, 3] uint8 RGB, contiguous.

    Args:
        image: [H, W] or [H, W, 1] grey, [H, W, 2] grey and alpha, [H, W, 3] RGB, or [H, W, 4] RGB and alpha; uint8,
            uint16 (the high byte is taken), bool, or floating point in [0, 1]. Transparent pixels are laid over white;
            an alpha channel that is 0 everywhere is dropped.

    Raises:
        ValueError: another shape or type, no pixels, or a float that is not in [0, 1].
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image must be a NumPy array, not {type(image).__module__}.{type(image).__qualname__}")
    shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 2, 3, 4))
    kind = (image.dtype.kind, image.dtype.itemsize)
    if not shaped or image.size == 0 or (kind[0] not in "bf" and kind not in (("u", 1), ("u", 2))):
        raise ValueError(
            "image must be [H, W], [H, W, 1], [H, W, 2], [H, W, 3] or [H, W, 4] with pixels, uint8, uint16, bool or "
            f"float in [0, 1], not {image.dtype} {list(image.shape)}"
        )
    values = image if image.ndim == 3 else image[:, :, None]
    if kind[0] == "f":
        if not ((values >= 0) & (values <= 1)).all():  # NaN is in no range
            raise ValueError("a float image must be in [0, 1]; divide by 255 or convert to uint8")
        values = (values * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    elif kind[0] == "b":
        values = values * np.uint8(255)
    elif kind == ("u", 2):
        values = (values >> 8).astype(np.uint8)
    if values.shape[2] in (2, 4):
        alpha = values[:, :, -1:].astype(np.uint32)
        values = values[:, :, :-1]
        if alpha.any():
            values = ((values * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    if values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    return np.ascontiguousarray(values)


def to_hsv(image: Image) -> Image:
    """Convert to HSV as MATLAB's rgb2hsv times 255, rounded; [H, W, 3] uint8 RGB -> [H, W, 3] uint8. Grey has hue 0."""
    result = np.empty_like(image)
    _to_hsv(image, result)
    return result


@compiled(error_model="numpy")
def _to_hsv(image: Any, result: Any) -> None:
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            red, green, blue = np.int32(image[y, x, 0]), np.int32(image[y, x, 1]), np.int32(image[y, x, 2])
            value = max(red, green, blue)
            chroma = value - min(red, green, blue)
            hue = 0.0
            if chroma > 0:
                if value == red:
                    hue = (green - blue) / chroma
                elif value == green:
                    hue = 2 + (blue - red) / chroma
                else:
                    hue = 4 + (red - green) / chroma
                if hue < 0:
                    hue += 6
            result[y, x, 0] = np.uint8(hue / 6 * 255 + 0.5)
            result[y, x, 1] = np.uint8(chroma / value * 255 + 0.5) if value > 0 else 0
            result[y, x, 2] = value


@compiled(error_model="numpy")
def _to_lab(image: Any, linear: Any, matrix: Any, stretched: Any, result: Any) -> None:
    """Image [H, W, 3], light of each byte [256], matrix [3, 3], space for three numbers -> result [H, W, 3]."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            red, green, blue = linear[image[y, x, 0]], linear[image[y, x, 1]], linear[image[y, x, 2]]
            for axis in range(3):
                light = matrix[axis, 0] * red + matrix[axis, 1] * green + matrix[axis, 2] * blue
                if light > 216 / 24389:
                    stretched[axis] = np.cbrt(light)
                else:
                    stretched[axis] = light * (841 / 108) + 4 / 29
            result[y, x, 0] = _byte((116 * stretched[1] - 16) * 2.55)
            result[y, x, 1] = _byte(500 * (stretched[0] - stretched[1]) + 128)
            result[y, x, 2] = _byte(200 * (stretched[1] - stretched[2]) + 128)


@compiled()
def _byte(value: float) -> Any:
    """Round to 0-255."""
    if value < 0:
        return np.uint8(0)
    if value > 255:
        return np.uint8(255)
    return np.uint8(value + 0.5)


def to_lab(image: Image) -> Image:
    """Convert to L*a*b* as MATLAB's applycform quantises it; [H, W, 3] RGB -> uint8 L * 255 / 100, a + 128, b + 128."""
    result = np.empty_like(image)
    _to_lab(image, _LINEAR, _XYZ, np.empty(3, np.float32), result)
    return result


def to_grey(image: Image) -> Image:
    """Convert to grey as MATLAB's rgb2gray (BT.601 luma, rounded), as OpenCV does; [H, W, 3] RGB -> [H, W, 1] uint8."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)[:, :, None]


def to_hue(image: Image) -> Image:
    """Convert to hue, the first channel of to_hsv; [H, W, 3] RGB -> [H, W, 1] uint8."""
    return np.ascontiguousarray(to_hsv(image)[:, :, :1])


def to_rgi(image: Image) -> Image:
    """Convert to normalised red and green, and grey; [H, W, 3] RGB -> [H, W, 3] uint8. Black counts as grey (ours)."""
    total = image.sum(axis=2, keepdims=True, dtype=np.float32)
    share = np.divide(image[:, :, :2], total, out=np.full((*image.shape[:2], 2), 1 / 3, np.float32), where=total > 0)
    return np.concatenate([np.rint(share * 255).astype(np.uint8), to_grey(image)], axis=2)


class ColourSpace(NamedTuple):
    """A colour space in which selective search segments an image.

    Attributes:
        convert: [H, W, 3] uint8 RGB -> [H, W, C] uint8.
        copies: Copies of the channels in the authors' code, which triplicates single-channel images. Only the edge
            weights change, by sqrt(copies); we keep one channel and divide k by sqrt(copies) instead.
    """

    convert: Callable[[Image], Image]
    copies: int = 1


COLOUR_SPACES = {
    "hsv": ColourSpace(to_hsv),
    "lab": ColourSpace(to_lab),
    "rgi": ColourSpace(to_rgi),
    "h": ColourSpace(to_hue, copies=3),
    "i": ColourSpace(to_grey, copies=3),
}
"""The authors' five colour spaces."""
