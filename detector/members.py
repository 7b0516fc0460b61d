"""Members of an ensemble: images and boxes -> RegionScores, from warped regions or regions cut from maps.

Networks with the same input share one warp of it. Batches cross images. A batch for which the device has no memory is
halved, then and for all later images.

N boxes, K classes, S side of a region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch

from detector.checkpoint import RegionClassifier
from detector.device import free_cached_memory, out_of_memory
from detector.network.backends import build_backend
from detector.network.googlenet import Heads
from detector.network.input import network_input
from detector.regions.maps import SharedNetwork
from detector.regions.warp import warp
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
    """

    networks: int

    def score(self, views: Sequence[View]) -> RegionScores:
        """Score the boxes of images, at least one in each.

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
        self.networks = len(classifiers)
        self.device, self.offsets = device, config.regression
        self.regions, self.convention = classifiers[0].regions, classifiers[0].convention
        self._batch = Batch(batch_size(config, device), device)
        size = self.regions.size
        self._run = [
            build_backend(config.backend, one.network, device, size=size, precision=config.precision, ranges=one.ranges)
            for one in classifiers
        ]

    def score(self, views: Sequence[View]) -> RegionScores:
        """Score the boxes of images, see Member."""
        for view in views:
            view.count("regions_warped", len(view))
            view.count("network_passes", len(view) * self.networks)

        def run(part: slice) -> list[Heads]:
            some = [view for _, view in pieces(views, part)]
            with timed_together(some, "warp"):
                warped = [warp(view.image, view.boxes, self.regions, self.convention.mean) for view in some]
                regions = np.concatenate(warped) if len(warped) > 1 else warped[0]  # [B, S, S, 3]
                x = network_input(regions, self.convention, self.device)  # [B, 3, S, S]
            with timed_together(some, "network"), torch.inference_mode():
                return [network(x) for network in self._run]

        batches = self._batch.over(sum(map(len, views)), run)
        with timed_together(views, "network"):
            return RegionScores.mean([scores_of(heads, self.offsets) for heads in zip(*batches, strict=True)])


class SharedMember:
    """A network whose regions are cut from the maps that its trunk makes of the whole image.

    Args:
        classifier: A region classifier with `shared` settings.
        config: Batch size, precision and box regression.
        device: Where the network runs.
    """

    networks = 1

    def __init__(self, classifier: RegionClassifier, config: DetectorConfig, device: torch.device) -> None:
        assert classifier.shared is not None
        self.offsets = config.regression
        self._batch = Batch(CUTS * batch_size(config, device), device)
        self._network = SharedNetwork(
            classifier.network,
            classifier.convention,
            classifier.regions,
            classifier.shared,
            device,
            config.precision,
            classifier.ranges,
        )

    def score(self, views: Sequence[View]) -> RegionScores:
        """Score the boxes of images, see Member."""
        network = self._network
        for view in views:
            view.count("regions_cut", len(view))
        with torch.inference_mode():
            with timed_together(views, "trunk"):
                # Maps that do not fit the memory are an error: fewer boxes would not help.
                maps = network.trunk(views)

            def run(part: slice) -> Heads:
                some = pieces(views, part)
                with timed_together([view for _, view in some], "regions"):
                    cut = [network.cut(maps[index], view.boxes) for index, view in some]
                    return network.heads(torch.cat(cut) if len(cut) > 1 else cut[0])  # of [B, C, G, G]

            batches = self._batch.over(sum(map(len, views)), run)
            with timed_together(views, "regions"):
                return scores_of(batches, self.offsets)


def build_members(
    classifiers: Sequence[RegionClassifier], config: DetectorConfig, device: torch.device
) -> list[Member]:
    """Make the classifiers ready to score; those that need the same warped squares become one member."""
    members: list[Member] = []
    warped: dict[tuple[object, object], list[RegionClassifier]] = {}
    for one in classifiers:
        if one.shared:
            members.append(SharedMember(one, config, device))
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
