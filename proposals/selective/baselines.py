"""Other people's selective search behind our function, to compare with; never to be used for results.

In: image [H, W, 3] uint8 RGB.  Out: boxes [N, 4] int32 in the order of the implementation.

opencv           cv2.ximgproc, which only OpenCV's contrib builds have. It departs from the authors' code: k 150 to 450,
                 minimum size 100 whatever k is, 4 neighbours, hue up to 180, small regions first, narrow boxes kept.
                 Its ranking draws from the C library's rand(), which cv2.setRNGSeed does not reach: two calls give the
                 same boxes in another order. We seed that generator.
selectivesearch  the PyPI package, version 0.4. Its boxes lack their last column and row, which we add. The rest stands
                 as it is: of the colour histogram hue and saturation all fall into the first bin, and most of the
                 texture falls outside its histogram (AlpacaTechJP/selectivesearch, issues 21 and 30); neighbours are
                 found by their boxes, not by their pixels; no ranking: regions come in the order of their making.
"""

from __future__ import annotations

import ctypes
import threading

import cv2
import numpy as np
from numpy.typing import NDArray

_RAND = threading.Lock()  # the C library's generator is one for the whole process

# What the package's README uses.
_PACKAGE_SCALE, _PACKAGE_SIGMA, _PACKAGE_MIN_SIZE = 500, 0.9, 10


def opencv_boxes(image: NDArray[np.uint8], mode: str, superpixel_scale: float, seed: int) -> NDArray[np.int32]:
    """Boxes [N, 4] of OpenCV's selective search, its best first.

    Args:
        image: [H, W, 3] uint8 RGB.
        mode: fast, quality or single.
        superpixel_scale: multiplies its ks; its minimum size is fixed.
        seed: of its ranking.

    Raises:
        ImportError: this OpenCV has no ximgproc.
    """
    if not hasattr(cv2, "ximgproc"):
        raise ImportError(
            f"method opencv needs cv2.ximgproc, which this OpenCV {cv2.__version__} lacks: only contrib builds have "
            f"it. In a separate environment: pip install opencv-contrib-python=={cv2.__version__}"
        )
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    if mode == "single":
        search.switchToSingleStrategy(round(200 * superpixel_scale), 0.8)
    else:
        switch = search.switchToSelectiveSearchFast if mode == "fast" else search.switchToSelectiveSearchQuality
        step = round(150 * superpixel_scale)
        switch(step, step, 0.8)
    with _RAND:
        ctypes.CDLL(None).srand(ctypes.c_uint(seed))
        found = np.asarray(search.process(), np.int32).reshape(-1, 4)  # x, y, width, height
    return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)


def package_boxes(image: NDArray[np.uint8], superpixel_scale: float) -> NDArray[np.int32]:
    """Boxes [N, 4] of the PyPI package, corrected by the missing pixel; equal ones may occur more than once.

    Args:
        image: [H, W, 3] uint8 RGB.
        superpixel_scale: multiplies both its scale and its minimum size.

    Raises:
        ImportError: the package is not installed.
    """
    try:
        import selectivesearch  # imports scikit-image, which the native search does without
    except ImportError as error:
        raise ImportError(
            f"method selectivesearch needs the package of that name ({error}): pip install selectivesearch==0.4"
        ) from error
    _, regions = selectivesearch.selective_search(
        image,
        scale=_PACKAGE_SCALE * superpixel_scale,
        sigma=_PACKAGE_SIGMA,
        min_size=round(_PACKAGE_MIN_SIZE * superpixel_scale),
    )
    corners = [(x, y, x + width + 1, y + height + 1) for x, y, width, height in (region["rect"] for region in regions)]
    return np.array(corners, np.int32).reshape(-1, 4)
