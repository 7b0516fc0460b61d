"""Members of an ensemble: images and boxes -> RegionScores, from warped regions or regions cut from maps.

Networks with the same input share one warp of it. Batches cross images. A batch for which the device has no memory is
halved, then and for all later images.

N boxes, K classes, S side of a region.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.checkpoint import RegionClassifier
from detector.device import free_cached_memory, out_of_memory, upload
from detector.network.backends import build_backend
from detector.network.googlenet import Heads
from detector.network.input import network_input
from detector.regions.device_warp import warp_on_device
from detector.regions.maps import ImageMaps, SharedNetwork
from detector.regions.warp import warp
from detector.rejection import RejectionModel
from detector.scores import RegionScores
from detector.settings import DetectorConfig
from detector.views import View, pieces, timed_together

Result = TypeVar("Result")

BATCH_CPU, BATCH_GPU = 8, 256
"""Regions scored at a time unless set: more than 8 are no faster on a CPU; a GPU without memory for 256 halves them."""
CUTS = 8  # a region cut from maps costs a twelfth of a warped one: this many times as many make a batch


class Member(Protocol):
    """Scorer of the regions of images, one part of an ensemble.

    Attributes:
        networks: Number of networks whose mean the scores are.
        classifiers: The classifiers that they were made from.
    """

    networks: int
    classifiers: Sequence[RegionClassifier]

    def score(self, views: Sequence[View], *, reject: bool = True) -> RegionScores:
        """Score the boxes of images, at least one in each.

        Args:
            views: The images and their boxes.
            reject: Whether a member that has a rejection layer may leave boxes to it.

        Returns:
            Scores of all boxes, image after image. Time and work are added to the views.
        """
        ...


class WarpedMember:
    """Networks that score each box warped to a square; all have the same input.

    Args:
        classifiers: At least one, with the same regions and input convention.
        config: Batch size, backend, precision and box regression.
        device: Where the networks run.
    """

    def __init__(self, classifiers: Sequence[RegionClassifier], config: DetectorConfig, device: torch.device) -> None:
        self.networks, self.classifiers = len(classifiers), classifiers
        self.device, self.offsets = device, config.regression
        self.regions, self.convention = classifiers[0].regions, classifiers[0].convention
        self._batch = Batch(batch_size(config, device), device)
        self._on_device = device.type != "cpu"  # regions are warped where the network runs
        size = self.regions.size
        self._run = [
            build_backend(config.backend, one.network, device, size=size, precision=config.precision, ranges=one.ranges)
            for one in classifiers
        ]

    def score(self, views: Sequence[View], *, reject: bool = True) -> RegionScores:
        """Score the boxes of images, see Member."""
        fill = self.convention.mean
        for view in views:
            view.count("regions_warped", len(view))
            view.count("network_passes", len(view) * self.networks)

        images = [upload(view.image, self.device).float() for view in views] if self._on_device else []

        def run(part: slice) -> list[Heads]:
            numbered = pieces(views, part)
            some = [view for _, view in numbered]
            with timed_together(some, "warp"):
                regions: NDArray[np.uint8] | Tensor  # [B, S, S, 3]
                if self._on_device:
                    there = [warp_on_device(images[i], view.boxes, self.regions, fill) for i, view in numbered]
                    regions = torch.cat(there)
                else:
                    here = [warp(view.image, view.boxes, self.regions, fill) for view in some]
                    regions = np.concatenate(here) if len(here) > 1 else here[0]
                x = network_input(regions, self.convention, self.device)  # [B, 3, S, S]
            with timed_together(some, "network"), torch.inference_mode():
                return [network(x) for network in self._run]

        batches = self._batch.over(sum(map(len, views)), run)
        with timed_together(views, "network"):
            each = [scores_of(heads, self.offsets) for heads in zip(*batches, strict=True)]
            record_looks(views, self.classifiers, each)
            return RegionScores.mean(each)


class SharedMember:
    """A network whose regions are cut from the maps that its trunk makes of the whole image.

    Args:
        classifier: A region classifier with `shared` settings.
        config: Batch size, precision and box regression.
        device: Where the network runs.
        rejection: Layer that rejects regions before they are cut; None cuts and scores them all.
    """

    networks = 1

    def __init__(
        self,
        classifier: RegionClassifier,
        config: DetectorConfig,
        device: torch.device,
        rejection: RejectionModel | None = None,
    ) -> None:
        assert classifier.shared is not None
        self.classifiers: Sequence[RegionClassifier] = [classifier]
        self.offsets, self.classes = config.regression, len(classifier.classes)
        self._layer = copy.deepcopy(rejection.layer).to(device) if rejection else None
        self._threshold = rejection.threshold if rejection else 0.0
        self._batch = Batch(CUTS * batch_size(config, device), device)
        self.network = SharedNetwork(
            classifier.network,
            classifier.convention,
            classifier.regions,
            classifier.shared,
            device,
            config.precision,
            classifier.ranges,
        )

    def score(self, views: Sequence[View], *, reject: bool = True) -> RegionScores:
        """Score the boxes of images, see Member; those that the layer rejects are certain to be background."""
        network = self.network
        with torch.inference_mode():
            with timed_together(views, "trunk"):
                # Maps that do not fit the memory are an error: fewer boxes would not help.
                maps = network.trunk(views)
            with timed_together(views, "rejection"):
                passing = self._passing(views, maps, reject)
            kept = [view[np.flatnonzero(rows)] for view, rows in zip(views, passing, strict=True)]
            for view in kept:
                view.count("regions_cut", len(view))

            def run(part: slice) -> Heads:
                some = pieces(kept, part)
                with timed_together([view for _, view in some], "regions"):
                    cut = [network.cut(maps[index], view.boxes) for index, view in some]
                    return network.heads(torch.cat(cut) if len(cut) > 1 else cut[0])  # of [B, C, G, G]

            batches = self._batch.over(sum(map(len, kept)), run)
            with timed_together(views, "regions"):
                all_passing = np.concatenate(passing)
                scores = RegionScores.background(len(all_passing), self.classes, offsets=self.offsets)
                if batches:
                    scores = scores.updated(all_passing, scores_of(batches, self.offsets))
                record_looks(views, self.classifiers, [scores])
                return scores

    def _passing(self, views: Sequence[View], maps: Sequence[ImageMaps], reject: bool) -> list[NDArray[np.bool_]]:
        """Return which boxes of each view the layer does not reject, copied from the device once."""
        if self._layer is None or not reject:
            return [np.ones(len(view), np.bool_) for view in views]
        network = self.network
        logits = [
            self._layer(one.levels.__getitem__, view.boxes, one.size, network.regions, network.config)
            for view, one in zip(views, maps, strict=True)
        ]
        objects = torch.cat(logits).sigmoid().cpu().numpy()
        each: list[NDArray[np.float32]] = np.split(objects, list(accumulate(map(len, views)))[:-1])
        for view, own in zip(views, each, strict=True):
            if view.recorder:
                view.recorder.rejection(own, self._threshold)
        return [own >= self._threshold for own in each]


def record_looks(views: Sequence[View], classifiers: Sequence[RegionClassifier], each: Sequence[RegionScores]) -> None:
    """Tell the recorders of images what each classifier makes of their boxes.

    Args:
        views: Images and boxes.
        classifiers: The classifiers.
        each: The scores by each of them of all boxes, image after image.
    """
    for view, end in zip(views, accumulate(map(len, views)), strict=True):
        if view.recorder:
            for classifier, scores in zip(classifiers, each, strict=True):
                own = scores[end - len(view) : end]
                own = own.mirrored() if view.is_mirrored else own
                view.recorder.look(classifier, view.is_mirrored, own.probabilities, own.offsets)


def build_members(
    classifiers: Sequence[RegionClassifier],
    config: DetectorConfig,
    device: torch.device,
    rejection: RejectionModel | None = None,
) -> list[Member]:
    """Make the classifiers ready to score; those that need the same warped squares become one member.

    Args:
        classifiers: The networks.
        config: Batch size, backend, precision and box regression.
        device: Where they run.
        rejection: Rejection layer of the first classifier, which then cuts its regions from maps.
    """
    members: list[Member] = []
    warped: dict[tuple[object, object], list[RegionClassifier]] = {}
    for index, one in enumerate(classifiers):
        if one.shared:
            members.append(SharedMember(one, config, device, rejection if index == 0 else None))
        else:
            warped.setdefault((one.regions, one.convention), []).append(one)
    return members + [WarpedMember(group, config, device) for group in warped.values()]


def scores_of(batches: Sequence[Heads], offsets: bool) -> RegionScores:
    """Join the heads of consecutive batches to scores, copied from the device once."""
    probabilities = torch.cat([heads.logits.float().softmax(dim=1) for heads in batches]).cpu().numpy()
    if not offsets:
        return RegionScores(probabilities)
    moves = [heads.offsets for heads in batches if heads.offsets is not None]
    return RegionScores(probabilities, torch.cat(moves).float().cpu().numpy())


def batch_size(config: DetectorConfig, device: torch.device) -> int:
    """Return the number of warped regions to score at a time: the config's, else one that suits the device."""
    return config.batch or (BATCH_CPU if device.type == "cpu" else BATCH_GPU)


class Batch:
    """A number of regions that fit the device's memory, halved when they prove not to.

    Args:
        size: Regions scored at a time.
        device: Where they are scored.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.device = size, device

    def over(self, count: int, run: Callable[[slice], Result]) -> list[Result]:
        """Run a function over `count` regions, a slice of them at a time.

        Raises:
            RuntimeError, MemoryError: One region alone does not fit; other errors of the function pass too.
        """
        results: list[Result] = []
        start = 0
        while start < count:
            length = min(self.size, count - start)
            try:
                results.append(run(slice(start, start + length)))
                start += length
            except (RuntimeError, MemoryError) as error:
                if length == 1 or not out_of_memory(error):
                    raise
                self.size = (length + 1) // 2
                free_cached_memory(self.device)
        return results
