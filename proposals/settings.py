"""What can be set about proposals: methods, modes, rankings. Pure Python: commands refuse wrong settings at once.

Sources of the modes: Uijlings et al., IJCV 2013, the code released with it, R-CNN's, and OpenCV's ximgproc module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


class Mode(NamedTuple):
    """Which segmentations and hierarchies: every k in every colour space, every set of similarities over each.

    Attributes:
        ks: thresholds of the segmentation.
        colour_spaces: names in proposals.colour.
        similarities: sets of letters of "CTSF".
        min_size: smallest superpixel, px²; None is k.
        neighbours: of a pixel in the segmentation's graph.
    """

    ks: tuple[int, ...]
    colour_spaces: tuple[str, ...]
    similarities: tuple[str, ...]
    min_size: int | None = None
    neighbours: int = 8


_ALL = ("hsv", "lab", "rgi", "h", "i")
MODES = {
    "fast": Mode((50, 100), ("hsv", "lab"), ("CTSF", "TSF")),
    "quality": Mode((50, 100, 150, 300), _ALL, ("CTSF", "TSF", "F", "S")),
    "single": Mode((200,), ("hsv",), ("CTSF",)),
    "opencv-fast": Mode((150, 300, 450), ("opencv-hsv", "opencv-lab"), ("CTSF", "TSF"), min_size=100, neighbours=4),
    "opencv-quality": Mode(
        (150, 300, 450, 600, 750),
        tuple(f"opencv-{name}" for name in _ALL),
        ("CTSF", "TSF", "F", "S"),
        min_size=100,
        neighbours=4,
    ),
}
"""The authors' three, and the settings of OpenCV's two."""

METHODS = {"native": tuple(MODES), "opencv": ("fast", "quality", "single"), "selectivesearch": ("fast",)}
"""Whose selective search, and its modes: this package's, OpenCV's, or the PyPI package's, which has one only."""

RANKINGS = ("large-first", "small-first")


@dataclass(frozen=True)
class ProposalConfig:
    """How boxes are proposed.

    Attributes:
        method: native (this package's selective search), or a baseline: opencv, selectivesearch (proposals.baselines).
        mode: fast (R-CNN's), quality, single, opencv-fast, opencv-quality.
        superpixel_scale: 1 is R-CNN's selective search, 2 GoogLeNet's (§8).
        ranking: large-first (the authors') or small-first; baselines keep their own order.
        width: images are resized to this width first, px; 0 keeps their own (R-CNN: 500 on ILSVRC).
        min_width: boxes narrower or lower than this in the resized image are dropped, px (R-CNN: 20).
        max_boxes: keep the best of each image; 0 keeps all.
        seed: of the random ranking.
    """

    method: str = "native"
    mode: str = "fast"
    superpixel_scale: float = 2.0
    ranking: str = "large-first"
    width: int = 500
    min_width: int = 20
    max_boxes: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_search(self.method, self.mode, self.superpixel_scale, self.ranking, "proposals.")
        for name in ("width", "min_width", "max_boxes", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"proposals.{name} must not be negative, but is {getattr(self, name)}")


def check_search(method: str, mode: str, superpixel_scale: float, ranking: str, prefix: str = "") -> None:
    """Raise ValueError, naming the setting behind the prefix, unless they are a search that exists."""
    if method not in METHODS:
        raise ValueError(f"{prefix}method must be one of {', '.join(METHODS)}, not {method!r}")
    if mode not in METHODS[method]:
        of = "" if method == "native" else f" of method {method}"
        raise ValueError(f"{prefix}mode{of} must be one of {', '.join(METHODS[method])}, not {mode!r}")
    if not 0 < superpixel_scale < math.inf:
        raise ValueError(f"{prefix}superpixel_scale must be above 0 and finite, not {superpixel_scale}")
    if ranking not in RANKINGS:
        raise ValueError(f"{prefix}ranking must be one of {', '.join(RANKINGS)}, not {ranking!r}")
    if method != "native" and ranking != RANKINGS[0]:
        raise ValueError(f"{prefix}ranking cannot be set for method {method}, which has an order of its own")
