"""What can be set about proposals: methods, modes, rankings. Pure Python: commands refuse wrong settings at once.

Sources of the modes: Uijlings et al., IJCV 2013, the code released with it, R-CNN's, and OpenCV's ximgproc module.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


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
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class MultiBoxSettings:
    """Which boxes MultiBox adds.

    Attributes:
        weights: a file, or the name of shipped ones; empty for no MultiBox.
        limit: at most so many boxes an image.
        max_iou: overlap with a better one above this drops a box, in (0, 1]; 1 keeps all.
        crops: what it looks at beside the whole image: 0: nothing; 1: overlapping squares of two thirds of the shorter
            side, six of a photograph of 4:3; 2: of a third too, 35 more.
        precision: what its trunk computes in: float32, bfloat16, or auto: bfloat16 where the device multiplies it
            faster.
    """

    weights: str = ""
    limit: int = 200  # §8
    max_iou: float = 0.8  # ours: the release has no suppression, and near-copies occur
    crops: int = 0
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"proposals.multibox.limit must be at least 1, not {self.limit}")
        if not 0 < self.max_iou <= 1:
            raise ValueError(f"proposals.multibox.max_iou must be in (0, 1], not {self.max_iou}")
        if self.crops not in (0, 1, 2):
            raise ValueError(f"proposals.multibox.crops must be 0, 1 or 2, not {self.crops}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"proposals.multibox.precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}"
            )


@dataclass(frozen=True)
class ProposalConfig:
    """How boxes are proposed: by selective search, by MultiBox, by sources of one's own, or by several together.

    Attributes:
        selective_search: whether it takes part.
        multibox: whether and how MultiBox does.
        own: further sources by name: "package.module:function" (image [H, W, 3] uint8 RGB -> boxes [N, 4] px and scores
            [N], best first), or the folder of a store (proposals.store), which holds boxes of image files.
        near: a box that overlaps one of an earlier source by more than this is left out, in (0, 1]; 1 keeps all.
        method: native (this package's selective search), or a baseline: opencv, selectivesearch (proposals.baselines).
        mode: fast (R-CNN's), quality, single, opencv-fast, opencv-quality.
        superpixel_scale: 1 is R-CNN's selective search, 2 GoogLeNet's (§8).
        ranking: large-first (the authors') or small-first; baselines keep their own order.
        width: images are resized to this width first, px; 0 keeps their own (R-CNN: 500 on ILSVRC).
        min_width: boxes narrower or lower than this in the resized image are dropped, px (R-CNN: 20).
        max_boxes: of all sources together; selective search, whose boxes come last, is cut. 0 keeps all.
        seed: of the random ranking.
    """

    selective_search: bool = True
    multibox: MultiBoxSettings = field(default_factory=MultiBoxSettings)
    own: dict[str, str] = field(default_factory=dict)
    near: float = 0.95  # ours
    method: str = "native"
    mode: str = "fast"
    superpixel_scale: float = 2.0
    ranking: str = "large-first"
    width: int = 500
    min_width: int = 20
    max_boxes: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.selective_search and not self.multibox.weights and not self.own:
            raise ValueError("proposals has no source: set selective_search, multibox.weights or own")
        for name in ("selective search", "multibox"):
            if name in self.own:
                raise ValueError(f"proposals.own cannot be called {name!r}: that is another source's name")
        if not 0 < self.near <= 1:
            raise ValueError(f"proposals.near must be in (0, 1], not {self.near}")
        check_search(self.method, self.mode, self.superpixel_scale, self.ranking, "proposals.")
        for name in ("width", "min_width", "max_boxes", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"proposals.{name} must not be negative, but is {getattr(self, name)}")

    def __hash__(self) -> int:
        return settings_hash(self)


def settings_hash(settings: Any) -> int:
    """A hash of a dataclass of settings, whose fields may be lists and dicts; the same for equal ones."""
    return hash(_hashable(asdict(settings)))


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return frozenset((key, _hashable(inner)) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    return value


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
