"""Boxes -> RegionScores: the mean of an ensemble, on request only of regions that its first member passes.

In: images [H, W, 3] uint8 RGB, boxes [N, 4] px in each.  Out: RegionScores of each image's N boxes; with a second pass
also the regions that it moved, and their scores.
The paper's entry averages the softmax of six GoogLeNets over every region (§8). Most regions are background. In the
cascade, which is ours, the first member rejects those, and the other members score only the remaining regions.
The cascade is a heuristic. One member's score bounds the mean of six only to within 5/6, so no region can be dropped
with certainty.

N boxes, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from detector.checkpoint import RegionClassifier
from detector.invocation import command
from detector.members import Member, build_members
from detector.model_files import CheckpointError
from detector.network.fastest import scoring_precision
from detector.regions.offsets import apply_offsets
from detector.rejection import RejectionModel
from detector.scores import RegionScores
from detector.settings import CascadeConfig, DetectorConfig
from detector.suppression import class_nms
from detector.views import View
from proposals.boxes import Boxes, check_boxes

Look = tuple[Member, bool]
"""A member, and whether it sees the mirror image."""


class Ensemble:
    """Members ready to score, and how their scores are combined.

    Args:
        first: Members that score every region.
        others: Members that score the regions that the cascade passes.
        config: Box regression, mirrored regions and cascade.
        classes: Number of classes K.
    """

    def __init__(self, first: list[Member], others: list[Member], config: DetectorConfig, classes: int) -> None:
        self.first, self.others, self.config, self.classes = first, others, config, classes

    def score(self, views: Sequence[View]) -> list[tuple[View, RegionScores]]:
        """Score the boxes of images and, where the config has a second pass, move those that pass and score them again.

        Returns:
            Each view, behind whose boxes those of a second pass stand, and the scores of its boxes.

        Raises:
            ValueError: A box is not finite, has no area or lies outside its image.
        """
        scores = self(views)
        return (
            self.second_pass(views, scores)
            if self.config.cascade.second_pass
            else list(zip(views, scores, strict=True))
        )

    def __call__(self, views: Sequence[View]) -> list[RegionScores]:
        """Score the boxes of images, in batches that cross images; time and work are added to the views.

        Raises:
            ValueError: A box is not finite, has no area or lies outside its image.
        """
        for view in views:
            check_boxes(view.boxes, view.image.shape[1], view.image.shape[0])
        looks, more = self._looks()
        first = self._mean(looks, views)
        if not more:
            return first
        passing = [passes(scores, view.boxes, self.config.cascade) for scores, view in zip(first, views, strict=True)]
        for view, one in zip(views, passing, strict=True):
            if view.recorder:
                view.recorder.passed(*one)
        scored = [view[one.scored] for view, one in zip(views, passing, strict=True)]
        others = self._mean(more, scored, reject=False)
        count = _networks(more) // _networks(looks)  # with `mirror` both are doubled
        return [cascaded(*each, count) for each in zip(first, passing, others, strict=True)]

    def second_pass(self, views: Sequence[View], scores: Sequence[RegionScores]) -> list[tuple[View, RegionScores]]:
        """Score the regions that pass once more, each moved to where its best class sees the object.

        This is the iterative localisation of MR-CNN (arXiv 1505.01749, §5) with two rounds: the moved regions join the
        others, each with its own scores and offsets.

        Args:
            views: Images and their boxes.
            scores: The scores of those, with offsets.

        Returns:
            Each view with the moved boxes behind its own, and the scores of both.
        """
        moved = [
            replace(view, boxes=moved_boxes(one, view, self.config.cascade))
            for view, one in zip(views, scores, strict=True)
        ]
        for view in moved:
            if view.recorder:
                view.recorder.moved(view.boxes)
        again = self.by_all(moved)
        return [
            (replace(view, boxes=np.concatenate([view.boxes, new.boxes])), RegionScores.joined([one, other]))
            for view, new, one, other in zip(views, moved, scores, again, strict=True)
        ]

    def by_all(self, views: Sequence[View]) -> list[RegionScores]:
        """Score the boxes of images by every member, without rejection and cascade."""
        for view in views:
            check_boxes(view.boxes, view.image.shape[1], view.image.shape[0])
        looks, more = self._looks()
        return self._mean([*looks, *more], views, reject=False)

    def _looks(self) -> tuple[list[Look], list[Look]]:
        """Members and the sides they see: of every region, and of those that pass."""
        sides = (False, True) if self.config.mirror else (False,)
        more = [(member, side) for side in sides for member in self.others]
        if self.config.cascade.mirror:
            more += [(member, True) for member in (*self.first, *self.others)]
        return [(member, side) for side in sides for member in self.first], more

    def _mean(self, looks: Sequence[Look], views: Sequence[View], *, reject: bool = True) -> list[RegionScores]:
        """Average the scores that members give to the boxes or to their mirror images."""
        shown = [view for view in views if len(view)]
        if not shown:
            return [RegionScores.empty(self.classes, offsets=self.config.regression)] * len(views)
        turned = [view.mirrored() for view in shown] if any(is_mirrored for _, is_mirrored in looks) else []
        scores = [
            member.score(turned, reject=reject).mirrored() if is_mirrored else member.score(shown, reject=reject)
            for member, is_mirrored in looks
        ]
        mean = RegionScores.mean(scores, [member.networks for member, _ in looks])
        ends = accumulate(map(len, views))
        return [mean[end - len(view) : end] for view, end in zip(views, ends, strict=True)]


class RegionScorer(Ensemble):
    """The region classifiers of an ensemble, ready to score.

    Args:
        classifiers: At least one, all with the same classes.
        config: Batch size, backend, precision, box regression, mirrored regions and cascade.
        device: Where the networks run.
        rejection: Rejection layer of the first classifier; None lets it score all regions.

    Attributes:
        first: Members that score every region.
        others: Members that score the regions that the cascade passes; none without a cascade.
        precision: Number format of the networks: float32, bfloat16 or int8.

    Raises:
        CheckpointError: The config asks for box regression, and a classifier has none.
        DeviceError: The device lacks the backend or the precision.
        ImportError: The config asks for onnxruntime, which is not installed.
    """

    def __init__(
        self,
        classifiers: Sequence[RegionClassifier],
        config: DetectorConfig,
        device: torch.device,
        rejection: RejectionModel | None = None,
    ) -> None:
        without = [number for number, one in enumerate(classifiers, 1) if not one.network.config.regression_cells]
        if config.regression and without:
            raise CheckpointError(
                f"regression=true, and model {without[0]} of {len(classifiers)} has no regression layer; fit one: "
                f"{command('train_classifier')} --config regression_voc init=MODEL; "
                "or take regression=false"
            )
        calibrated = all(one.ranges for one in classifiers)
        self.precision = (
            "float32"
            if config.backend == "onnxruntime"
            else scoring_precision(config.precision, device, calibrated=calibrated)
        )
        used = replace(config, precision=self.precision)
        first = 1 if config.cascade.applies else len(classifiers)
        super().__init__(
            build_members(classifiers[:first], used, device, rejection),
            build_members(classifiers[first:], used, device),
            config,
            len(classifiers[0].classes),
        )


def _networks(looks: Sequence[Look]) -> int:
    return sum(member.networks for member, _ in looks)


class Passing(NamedTuple):
    """The regions of an image that the cascade does not leave to the first member.

    Attributes:
        scored: Positions of the regions that are scored further, ascending.
        copies: Positions of their near-copies, which become background.
    """

    scored: NDArray[np.int64]
    copies: NDArray[np.int64]


def cascaded(first: RegionScores, passing: Passing, others: RegionScores, count: int) -> RegionScores:
    """Average an ensemble over an image's regions; regions that the first member rejects keep its scores.

    Args:
        first: The first member's scores of N regions.
        passing: The regions that pass, see `passes`.
        others: Mean of the further scores, of those that are scored further.
        count: Number of scores that it is the mean of, at least 1.
    """
    if len(passing.scored) == 0:
        return first
    result = first.updated(passing.scored, RegionScores.mean([first[passing.scored], others], [1, count]))
    if len(passing.copies) == 0:
        return result
    nothing = RegionScores.background(len(passing.copies), first.classes, offsets=first.offsets is not None)
    return result.updated(passing.copies, nothing)


def passes(scores: RegionScores, boxes: Boxes, config: CascadeConfig) -> Passing:
    """Choose the regions that are scored further: by the other members, as mirror images.

    A near-copy may not keep the first member's scores: alone they are often higher than the mean, so that the copy
    would win over the region that all members have scored.

    Args:
        scores: The first member's scores.
        boxes: [N, 4] px, the regions.
        config: Probability of any object above which a region passes, the number that passes in any case, and the
            overlap that makes near-copies.
    """
    none = np.zeros(0, np.int64)
    if not config.applies:
        return Passing(np.arange(len(scores)), none)
    objects = 1 - scores.probabilities[:, 0]
    above = objects > config.threshold
    above[np.argsort(-objects, kind="stable")[: config.best]] = True
    above &= objects > 0  # what early rejection dropped is scored by none
    passing = np.flatnonzero(above)
    if config.near == 1 or len(passing) == 0:
        return Passing(passing, none)
    kept, _ = class_nms(boxes[passing, None], objects[passing, None], -1.0, config.near)
    scored = passing[np.sort(kept)]
    return Passing(scored, np.setdiff1d(passing, scored))


def moved_boxes(scores: RegionScores, view: View, config: CascadeConfig) -> Boxes:
    """Move the regions that pass, by all members' scores, to where their best class sees the object.

    Args:
        scores: Scores of N regions, with offsets.
        view: The image and the N regions.
        config: Which regions pass, see `passes`; of moved boxes that are near-copies the best is kept.

    Returns:
        [M, 4] px, clipped to the image, in the type of the regions; none is narrower or lower than 1 px.
    """
    assert scores.offsets is not None  # a config with a second pass has regression
    rows, best = np.arange(len(scores)), scores.probabilities[:, 1:].argmax(axis=1)
    height, width, _ = view.image.shape
    moved = apply_offsets(view.boxes, scores.offsets[rows, best][:, None], width, height)[:, 0].astype(view.boxes.dtype)
    sized = np.flatnonzero((moved[:, 2:] - moved[:, :2] >= 1).all(axis=1))
    return moved[sized][passes(scores[sized], moved[sized], config).scored]
