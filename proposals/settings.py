"""The settings of proposals: which sources take part, and how each of them works.

Pure Python, so that commands reject wrong settings before anything slow is imported.
Sources of the modes: Uijlings et al., IJCV 2013, the code released with it, and R-CNN's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple


class Mode(NamedTuple):
    """The segmentations and hierarchies of a selective search.

    Each threshold in each colour space gives a segmentation; each set of similarities gives one hierarchy over it.

    Attributes:
        ks: Thresholds k of the segmentation.
        colour_spaces: Names in proposals.selective.colour.COLOUR_SPACES.
        similarities: Sets of the letters of "CTSF" (colour, texture, size, fill).
        min_size: Area of the smallest superpixel, px²; None uses k.
        neighbours: Neighbours of a pixel in the segmentation's graph, 8 (the authors') or 4.
    """

    ks: tuple[int, ...]
    colour_spaces: tuple[str, ...]
    similarities: tuple[str, ...]
    min_size: int | None = None
    neighbours: int = 8


MODES = {
    "fast": Mode((50, 100), ("hsv", "lab"), ("CTSF", "TSF")),
    "quality": Mode((50, 100, 150, 300), ("hsv", "lab", "rgi", "h", "i"), ("CTSF", "TSF", "F", "S")),
    "single": Mode((200,), ("hsv",), ("CTSF",)),
}
"""The three modes of the authors' code."""

METHODS = ("native", "selectivesearch")
PRECISIONS = ("auto", "float32", "bfloat16")
SCORING_PRECISIONS = (*PRECISIONS, "int8")
"""Those of networks that only score."""


@dataclass(frozen=True)
class MultiBoxSettings:
    """The boxes that the MultiBox network adds.

    Attributes:
        weights: File of a trained MultiBox, the folder of its run, or the name of shipped weights such as multibox_voc.
            Empty turns MultiBox off. Only `detector` can load the file; `proposals.propose` takes the loaded network as
            its argument `multibox`.
        limit: Most boxes per image.
        max_iou: A box that overlaps a better one by more than this IoU is dropped, in (0, 1]; 1 keeps all.
        crops: Parts of the image the network sees. 0: the whole image only. 1: overlapping squares of 2/3 of the
            shorter side too (six for an image of 4:3). 2: squares of 1/3 too (35 more).
        precision: Number type of the trunk: float32, bfloat16, int8 (on a CPU; the weights need ranges of their
            activations), or auto, the fastest of them on this machine.
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
        if self.precision not in SCORING_PRECISIONS:
            raise ValueError(
                f"proposals.multibox.precision must be one of {', '.join(SCORING_PRECISIONS)}, not {self.precision!r}"
            )


@dataclass(frozen=True)
class ProposalConfig:
    """The sources of boxes: selective search, MultiBox, your own sources, or several of these together.

    Attributes:
        selective_search: Whether selective search takes part.
        multibox: The MultiBox network; off by default.
        own: Your own sources by name. A value is either "package.module:function", a function that takes an image
            [H, W, 3] uint8 RGB and returns boxes [N, 4] px and scores [N], best first; or the folder of a proposal
            store (proposals.store), which holds the boxes of image files.
        near: A box that overlaps a box of an earlier source by more than this IoU is dropped, in (0, 1]; 1 keeps all.
            The order is MultiBox, own sources, selective search.
        method: Implementation of selective search: native (this package's), or selectivesearch (the PyPI package,
            slow, for comparison; it has one mode and ranks nothing).
        mode: Mode of the native search: fast (R-CNN's, 8 hierarchies), quality (80) or single (1).
        superpixel_scale: Factor for the threshold k and the smallest superpixel; 1 is R-CNN's, 2 is GoogLeNet's (§8).
        width: Selective search resizes the image to this width first, px (R-CNN on ILSVRC: 500); 0 keeps its own size.
        min_width: Boxes of selective search narrower or lower than this in the resized image are dropped, px
            (R-CNN: 20).
        max_boxes: Most boxes per image, all sources together; the last boxes of selective search are cut. 0 keeps all.
        seed: Seed of selective search's random ranking.
    """

    RETIRED: ClassVar[dict[str, object]] = {"ranking": "large-first"}  # settings that files of version 0.1 may state

    selective_search: bool = True
    multibox: MultiBoxSettings = field(default_factory=MultiBoxSettings)
    own: dict[str, str] = field(default_factory=dict)
    near: float = 0.95  # ours
    method: str = "native"
    mode: str = "fast"
    superpixel_scale: float = 2.0
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
        if self.method not in METHODS:
            raise ValueError(f"proposals.method must be one of {', '.join(METHODS)}, not {self.method!r}")
        check_search(self.mode, self.superpixel_scale, "proposals.")
        for name in ("width", "min_width", "max_boxes", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"proposals.{name} must not be negative, but is {getattr(self, name)}")

    def __hash__(self) -> int:
        return settings_hash(self)


def settings_hash(settings: Any) -> int:
    """Hash the numbers and texts among a dataclass's fields, of which others may be lists and dicts."""
    return hash(tuple(value for value in vars(settings).values() if isinstance(value, float | int | str)))


def check_search(mode: str, superpixel_scale: float, prefix: str = "") -> None:
    """Raise ValueError, naming the setting behind the prefix, unless the native search has such a mode and scale."""
    if mode not in MODES:
        raise ValueError(f"{prefix}mode must be one of {', '.join(MODES)}, not {mode!r}")
    if not 0 < superpixel_scale < math.inf:
        raise ValueError(f"{prefix}superpixel_scale must be above 0 and finite, not {superpixel_scale}")
