"""Region augmentation: windows whose sides move a little, and whose context varies.

In: windows of an image, random numbers in [-1, 1).  Out: boxes.
A moved window keeps its label: where its IoU would give it another one it moves half as far, and stays if that does not
help. So the shares of a batch are those that were drawn. Context varies as if `regions.context` did: a box that is
enlarged about its centre shows, with the same context, what the box itself shows with more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import Record
from detector.regions.warp import RegionConfig
from detector.training.windows import IGNORED, label_windows
from proposals.boxes import Boxes, clip

SHARES = (1.0, 0.5, 0.25)  # of the move, tried in turn


@dataclass(frozen=True)
class Jitter:
    """How windows are varied.

    Attributes:
        boxes: Each side moves by up to this fraction of the window's width or height, in [0, 0.5).
        context: The context of a region changes by up to this, px of its square.
        foreground_iou: IoU from which a window is a positive, as in label_windows.
        background_iou: IoU below which it is background.
        seed: Seed of the random numbers.
    """

    boxes: float = 0.0
    context: float = 0.0
    foreground_iou: float = 0.5
    background_iou: float = 0.5
    seed: int = 0

    def draw(self, number: int, count: int) -> NDArray[np.float64]:
        """Draw the random numbers of a batch of `count` windows: [B, 5] in [-1, 1), four sides and the context."""
        return np.random.default_rng([self.seed, number, 3]).uniform(-1, 1, (count, 5))

    def apply(
        self,
        boxes: Boxes,
        labels: NDArray[np.int16],
        record: Record,
        size: tuple[int, int],
        regions: RegionConfig,
        chance: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """Vary windows of an image.

        Args:
            boxes: [N, 4] px.
            labels: [N], as label_windows gives them.
            record: The image's objects.
            size: Height and width of the image, px.
            regions: Size and context of a region.
            chance: [N, 5] from `draw`.

        Returns:
            [N, 4] px. Without a change of context they lie inside the image.
        """
        moved = self._moved(boxes.astype(np.float64), labels, record, size, chance[:, :4])
        return with_context(moved, regions, regions.context + self.context * chance[:, 4]).astype(np.float32)

    def _moved(
        self,
        boxes: NDArray[np.float64],
        labels: NDArray[np.int16],
        record: Record,
        size: tuple[int, int],
        chance: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        result = boxes.copy()
        left = labels != IGNORED
        moves = self.boxes * chance * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        for share in SHARES if self.boxes else ():
            moved = np.asarray(clip(boxes + share * moves, size[1], size[0])).astype(np.float32).astype(np.float64)
            found, _ = label_windows(moved, record, self.foreground_iou, self.background_iou)
            stands = left & (found == labels)
            result[stands] = moved[stands]
            left &= ~stands
        return result


def with_context(boxes: NDArray[np.float64], regions: RegionConfig, context: NDArray[np.float64]) -> Boxes:
    """Scale boxes [N, 4] about their centres to show, with `regions.context`, what they show with other contexts.

    Args:
        boxes: [N, 4] px.
        regions: Size and context of a region.
        context: [N] contexts, px, below half the size.
    """
    factor = (regions.size - 2 * regions.context) / (regions.size - 2 * context)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    scaled = np.concatenate([centre - half * factor[:, None], centre + half * factor[:, None]], axis=1)
    return np.where((factor == 1)[:, None], boxes, scaled)
