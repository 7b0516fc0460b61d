"""OpenCV's selective search, and this project's search with OpenCV's settings, for proposal_speed.py.

In: image [H, W, 3] uint8 RGB.  Out: boxes [N, 4] float32 px, best first, and scores [N] float32.
cv2.ximgproc, which only OpenCV's contrib builds have, departs from the authors' code: k is 150 to 450, the minimum size
100 for every k, 4 neighbours, hue up to 180, red and green are not normalised, small regions first, narrow boxes kept.
Its ranking draws from the C library's rand(), which cv2.setRNGSeed does not reach, so that two calls give the same
boxes in another order. We seed that generator.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from proposals.result import Found
from proposals.selective.colour import COLOUR_SPACES, ColourSpace, to_grey
from proposals.selective.search import rank, search
from proposals.settings import Mode, ProposalConfig


def _hsv(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), np.uint8)


SPACES = {
    "opencv-hsv": ColourSpace(_hsv),
    "opencv-lab": ColourSpace(lambda image: np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), np.uint8)),
    "opencv-rgi": ColourSpace(lambda image: np.concatenate([image[:, :, :2], to_grey(image)], axis=2)),
    "opencv-h": ColourSpace(lambda image: np.ascontiguousarray(_hsv(image)[:, :, :1])),
    "opencv-i": ColourSpace(to_grey),
}
COLOUR_SPACES.update(SPACES)

MODES = {
    "fast": Mode((150, 300, 450), ("opencv-hsv", "opencv-lab"), ("CTSF", "TSF"), min_size=100, neighbours=4),
    "quality": Mode((150, 300, 450, 600, 750), tuple(SPACES), ("CTSF", "TSF", "F", "S"), min_size=100, neighbours=4),
}
"""OpenCV's two modes as settings of this project's search."""


def opencv(image: NDArray[np.uint8], config: ProposalConfig, mode: str, threads: int) -> Found:
    """Run OpenCV's own search; `threads` has no effect.

    Raises:
        ImportError: this OpenCV has no ximgproc.
    """
    if not hasattr(cv2, "ximgproc"):
        raise ImportError(
            f"opencv needs cv2.ximgproc, which this OpenCV {cv2.__version__} lacks: only contrib builds have "
            f"it. In a separate environment: pip install opencv-contrib-python=={cv2.__version__}"
        )
    selective = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    selective.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
    step = round(150 * config.superpixel_scale)
    switch = selective.switchToSelectiveSearchFast if mode == "fast" else selective.switchToSelectiveSearchQuality
    switch(step, step, 0.8)
    ctypes.CDLL(None).srand(ctypes.c_uint(config.seed))
    found = np.asarray(selective.process(), np.int32).reshape(-1, 4)  # x, y, width, height
    boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)
    return rank(boxes, np.arange(len(boxes), dtype=np.float64), min_width=config.min_width, max_boxes=config.max_boxes)


def ours(image: NDArray[np.uint8], config: ProposalConfig, mode: str, threads: int) -> Found:
    """Run this project's search with OpenCV's settings and OpenCV's order, small regions first."""
    merges = search(image, MODES[mode], config.superpixel_scale, threads)
    priorities = (merges.steps + 1) * np.random.default_rng(config.seed).random(len(merges.steps))
    return rank(merges.boxes, priorities, min_width=config.min_width, max_boxes=config.max_boxes)


SEARCHES: dict[str, Callable[[NDArray[np.uint8], ProposalConfig, str, int], Found]] = {"opencv": opencv, "ours": ours}
