"""The PyPI package selectivesearch, version 0.4, as a method of selective search to compare with.

In: image [H, W, 3] uint8 RGB.  Out: boxes [N, 4] int32 in the order in which the package makes them.
The package's boxes lack their last column and row, which is corrected here. Its other faults stay: hue and saturation
all fall into the first bin of the colour histogram, most of the texture falls outside its histogram
(AlpacaTechJP/selectivesearch, issues 21 and 30), neighbours are found by boxes instead of pixels, nothing is ranked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# What the package's README uses.
_SCALE, _SIGMA, _MIN_SIZE = 500, 0.9, 10


def package_boxes(image: NDArray[np.uint8], superpixel_scale: float) -> NDArray[np.int32]:
    """Boxes [N, 4] of the PyPI package, corrected by the missing pixel; a box may occur more than once.

    Args:
        image: [H, W, 3] uint8 RGB.
        superpixel_scale: Factor for the package's scale and minimum size.

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
        image, scale=_SCALE * superpixel_scale, sigma=_SIGMA, min_size=round(_MIN_SIZE * superpixel_scale)
    )
    corners = [(x, y, x + width + 1, y + height + 1) for x, y, width, height in (region["rect"] for region in regions)]
    return np.array(corners, np.int32).reshape(-1, 4)
