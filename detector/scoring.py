"""Boxes -> RegionScores: the mean of an ensemble, on request only of regions that its first member passes.

In: image [H, W, 3] uint8 RGB, boxes [N, 4] px.  Out: RegionScores of the N boxes.
The paper's entry averages the softmax of six GoogLeNets over every region (§8). Most regions are background. In the
cascade, which is ours, the first member rejects those, and the other members score only the remaining regions.
The cascade is a heuristic. One member's score bounds the mean of six only to within 5/6, so no region can be dropped
with certainty.

N boxes, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from detector.checkpoint import CheckpointError, RegionClassifier
from detector.data.image import Image
from detector.invocation import command
from detector.members import Member, build_members
from detector.scores import RegionScores
from detector.settings import CascadeConfig, DetectorConfig
from proposals.boxes import Boxes, check_boxes, mirrored


class RegionScorer:
    """The region classifiers of an ensemble, ready to score.

    Args:
        classifiers: At least one, all with the same classes.
        config: Batch size, backend, precision, box regression, mirrored regions and cascade.
        device: Where the networks run.

    Raises:
        CheckpointError: The config asks for box regression, and a classifier has none.
        DeviceError: The device lacks the backend or the precision.
        ImportError: The config asks for onnxruntime, which is not installed.
    """

    def __init__(self, classifiers: Sequence[RegionClassifier], config: DetectorConfig, device: torch.device) -> None:
        self.classes, self.config = len(classifiers[0].classes), config
        without = [number for number, one in enumerate(classifiers, 1) if not one.network.config.regression_cells]
        if config.regression and without:
            raise CheckpointError(
                f"regression=true, and model {without[0]} of {len(classifiers)} has no regression layer; fit one: "
                f"{command('train_classifier')} --config regression_voc init=MODEL; "
                "or take regression=false"
            )
        first = 1 if config.cascade.applies else len(classifiers)
        self._first = build_members(classifiers[:first], config, device)
        self._others = build_members(classifiers[first:], config, device)

    def __call__(self, image: Image, boxes: Boxes, seconds: dict[str, float] | None = None) -> RegionScores:
        """Score the boxes of an image; time spent is added to seconds["warp"] and seconds["network"].

        Raises:
            ValueError: A box is not finite, has no area or lies outside the image.
        """
        check_boxes(boxes, image.shape[1], image.shape[0])
        seconds = {} if seconds is None else seconds
        if len(boxes) == 0:
            return RegionScores.empty(self.classes, offsets=self.config.regression)
        first = self._mean(self._first, image, boxes, seconds)
        count = sum(member.networks for member in self._others)

        def others(rows: NDArray[np.int64]) -> RegionScores:
            return self._mean(self._others, image, boxes[rows], seconds)

        return cascaded(first, others, count, self.config.cascade)

    def _mean(self, members: Sequence[Member], image: Image, boxes: Boxes, seconds: dict[str, float]) -> RegionScores:
        """Mean over the members, and with `mirror` over each region and its mirror image."""
        scores = [member.score(image, boxes, seconds) for member in members]
        if self.config.mirror:
            flipped, moved = np.ascontiguousarray(image[:, ::-1]), mirrored(boxes, image.shape[1])
            scores += [member.score(flipped, moved, seconds).mirrored() for member in members]
        return RegionScores.mean(scores, [member.networks for member in members] * (1 + self.config.mirror))


def cascaded(
    first: RegionScores, others: Callable[[NDArray[np.int64]], RegionScores], count: int, config: CascadeConfig
) -> RegionScores:
    """Average an ensemble; regions that the first member rejects keep its scores.

    Args:
        first: The first member's scores of N regions.
        others: Function that returns the other members' mean scores of the regions at some positions.
        count: Number of other members.
        config: The condition for a region to pass.
    """
    passing = passes(first, config) if count else np.zeros(0, np.int64)
    if len(passing) == 0:
        return first
    return first.updated(passing, RegionScores.mean([first[passing], others(passing)], [1, count]))


def passes(scores: RegionScores, config: CascadeConfig) -> NDArray[np.int64]:
    """Return the positions of the regions that the other members score too.

    Args:
        scores: The first member's scores.
        config: Probability of any object above which a region passes, and the number that passes in any case.
    """
    if not config.applies:
        return np.arange(len(scores))
    objects = 1 - scores.probabilities[:, 0]
    passing = objects > config.threshold
    passing[np.argsort(-objects, kind="stable")[: config.best]] = True
    return np.flatnonzero(passing)
