"""An image with the boxes to score in it, and what that has taken: the form in which images enter the networks.

Several views are scored together, in batches that cross images, so that small images fill a batch too. A stage's time
is shared out to the views by their boxes.

N boxes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.data.image import Image
from detector.measuring import timed
from proposals.boxes import Boxes, mirrored

STAGES = ("proposals", "trunk", "rejection", "regions", "warp", "network", "suppression")
"""Names in `seconds`: boxes proposed; maps of whole images made by a trunk; regions rejected on them; regions cut from
them and scored; regions warped; warped regions scored; scores turned into detections. Where a GPU computes, the stage
that waits for a result holds the time of the work queued before it."""
MIRROR = "mirror image"


class Recorder(Protocol):
    """Takes note of what the scoring of an image does, for whoever wants to see it (detector.trace)."""

    def rejection(self, probabilities: NDArray[np.float32], threshold: float) -> None:
        """Note the rejection layer's probability of any object in each box [N], and the least that is not rejected."""

    def look(
        self,
        classifier: object,
        mirrored: bool,
        probabilities: NDArray[np.float32],
        offsets: NDArray[np.float32] | None,
    ) -> None:
        """Note what a classifier makes of the boxes [N, K + 1], [N, K, 4], as they are or as mirror images."""

    def passed(self, scored: NDArray[np.int64], copies: NDArray[np.int64]) -> None:
        """Note the positions of the boxes that the cascade passes on, then looked at, and of their near-copies."""

    def moved(self, boxes: Boxes) -> None:
        """Note the boxes [M, 4] of a second pass; looks at those follow."""


@dataclass(frozen=True, eq=False)
class View:
    """An image, boxes in it, and the time and work they have taken.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        boxes: [N, 4] px.
        seconds: Time spent so far, by stage (STAGES).
        counts: Work done so far: regions_cut from maps, regions_warped, network_passes (warped regions, once for each
            network that scores them), trunk_pixels (px of resized images that a trunk has seen).
        kept: What was made of the image and serves other boxes too: the mirror image; the maps of each trunk, by its
            network.
        is_mirrored: Whether this is the mirror image of another view.
        recorder: Takes note of the scoring; None for nobody.
    """

    image: Image
    boxes: Boxes
    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    kept: dict[Hashable, Any] = field(default_factory=dict)
    is_mirrored: bool = False
    recorder: Recorder | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> View:
        """Select boxes by a slice or positions; time and work are still added to the same account."""
        return replace(self, boxes=self.boxes[rows])

    def mirrored(self) -> View:
        """Return the mirror image with the mirrored boxes, on the same account."""
        if MIRROR not in self.kept:
            self.kept[MIRROR] = np.ascontiguousarray(self.image[:, ::-1]), {}
        image, kept = self.kept[MIRROR]
        boxes = mirrored(self.boxes, self.image.shape[1])
        return replace(self, image=image, boxes=boxes, kept=kept, is_mirrored=not self.is_mirrored)

    def count(self, name: str, number: int) -> None:
        """Add to one of the counts."""
        self.counts[name] = self.counts.get(name, 0) + number


def pieces(views: Sequence[View], part: slice) -> list[tuple[int, View]]:
    """Find the views that a slice of all their boxes, in order, belongs to.

    Args:
        views: Images with boxes.
        part: Start and stop among the boxes of all views.

    Returns:
        (position, view with those of its boxes that the slice holds), of the views of which it holds any.
    """
    found = []
    for index, (view, end) in enumerate(zip(views, accumulate(map(len, views)), strict=True)):
        begin = end - len(view)
        if max(begin, part.start) < min(end, part.stop):
            found.append((index, view[max(part.start - begin, 0) : part.stop - begin]))
    return found


@contextmanager
def timed_together(views: Sequence[View], stage: str) -> Iterator[None]:
    """Add the time that the block takes to the views' seconds[stage], in proportion to their boxes."""
    spent: dict[str, float] = {}
    with timed(spent, stage):
        yield
    total = sum(map(len, views))
    for view in views:
        view.seconds[stage] = view.seconds.get(stage, 0.0) + spent[stage] * len(view) / total
