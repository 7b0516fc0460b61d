"""What one image asks of a detector, stage by stage: how many regions, pixels or views, and their multiply-adds.

In: a detector, an image, its boxes.  Out: the work of each stage.
The image is scored once by members that note what they are given; multiply-adds follow from the shapes that ran. They
are those of convolutions and linear layers: cutting regions by RoIAlign, pools and normalisation are not among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from detector.checkpoint import RegionClassifier
from detector.data.image import Image
from detector.members import Member, SharedMember
from detector.multibox import find_multibox, load_multibox
from detector.network.googlenet import GoogLeNet
from detector.network.operations import multiply_adds, on_meta
from detector.pipeline import Detector
from detector.regions.maps import FIRST_REGION_LAYER, resize_to_area
from detector.regions.rejection import RejectionLayer
from detector.scores import RegionScores
from detector.scoring import RegionScorer
from detector.views import View
from proposals.boxes import Boxes
from proposals.multibox.views import views as multibox_views

UNITS = {
    "MultiBox": "views",
    "trunk": "px",
    "rejection": "regions",
    "regions": "regions",
    "warp": "regions",
    "network": "regions",
}
"""What each stage counts; a region counts in `network` once for each network that scores it."""


@dataclass(frozen=True)
class Work:
    """The work of one stage.

    Attributes:
        count: Number of UNITS.
        multiply_adds: Multiply-adds of its layers.
    """

    count: int = 0
    multiply_adds: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.count + other.count, self.multiply_adds + other.multiply_adds)


class NetworkCosts:
    """Multiply-adds of a GoogLeNet's parts."""

    def __init__(self, network: GoogLeNet) -> None:
        self._network = on_meta(network)
        self.trunk = lru_cache(self._trunk)

    def _trunk(self, height: int, width: int) -> tuple[int, Tensor]:
        """Multiply-adds of the trunk on an image of that size, px, and its map [1, C, h, w] on the meta device."""
        x = _empty(1, 3, height, width)
        trunk = self._network.trunk_slice(None, FIRST_REGION_LAYER)
        return multiply_adds(trunk, lambda run: run(x)), trunk(x)

    def region(self, grid: int) -> int:
        """Multiply-adds of a region cut from the maps, `grid` cells to a side, with the layers on top."""
        _, maps = self.trunk(64, 64)
        cells = _empty(1, maps.shape[1], grid, grid)
        return multiply_adds(self._network, lambda run: run.heads(run.trunk_slice(FIRST_REGION_LAYER)(cells)))

    def warped(self, size: int) -> int:
        """Multiply-adds of a warped region, `size` px to a side, with the layers on top."""
        return multiply_adds(self._network, lambda run: run.heads(run.trunk(_empty(1, 3, size, size))))


class CountingMember:
    """A member that notes the work it is given.

    Args:
        member: The member that scores.
        layer: The member's rejection layer.
        done: The work so far by stage, which is added to.
    """

    def __init__(self, member: Member, layer: RejectionLayer | None, done: dict[str, Work]) -> None:
        self.networks, self.classifiers = member.networks, member.classifiers
        self._member, self._done = member, done
        self._layer = on_meta(layer) if layer else None
        self._costs = [NetworkCosts(one.network) for one in self.classifiers]

    def score(self, views: Sequence[View], *, reject: bool = True) -> RegionScores:
        """Score the boxes of images, see Member."""
        before = [(dict(view.counts), self._levels(view)) for view in views]
        scores = self._member.score(views, reject=reject)
        for view, (old, known) in zip(views, before, strict=True):
            new = {name: number - old.get(name, 0) for name, number in view.counts.items()}
            for classifier, costs in zip(self.classifiers, self._costs, strict=True):
                if classifier.shared:
                    levels = sorted(self._levels(view) - known)
                    self._note_cut(view, new["regions_cut"], classifier, costs, levels, reject)
                else:
                    self._note("network", len(view), len(view) * costs.warped(classifier.regions.size))
            self._note("warp", new.get("regions_warped", 0))
        return scores

    def _note(self, stage: str, count: int, multiply_adds: int = 0) -> None:
        self._done[stage] = self._done.get(stage, Work()) + Work(count, multiply_adds)

    def _levels(self, view: View) -> set[int]:
        """Levels of the pyramid that the member's trunk has seen of the image."""
        return set(view.kept.get(self._member.network, {})) if isinstance(self._member, SharedMember) else set()

    def _note_cut(
        self, view: View, cut: int, classifier: RegionClassifier, costs: NetworkCosts, levels: list[int], reject: bool
    ) -> None:
        shared = classifier.shared
        assert shared is not None
        self._note("regions", cut, cut * costs.region(shared.grid))
        sizes = [resize_to_area(view.image, shared.pyramid[level])[0].shape for level in levels]
        seen = [costs.trunk(height, width) for height, width, _ in sizes]
        self._note("trunk", sum(height * width for height, width, _ in sizes), sum(used for used, _ in seen))
        if self._layer and reject:
            cells = _empty(len(view), self._layer.hidden.in_features)

            def run(layer: RejectionLayer) -> None:
                for _, maps in seen:
                    layer.project(maps)
                layer.out(layer.hidden(cells))

            self._note("rejection", len(view), multiply_adds(self._layer, run))


class WorkCounter:
    """Counts what images ask of a detector.

    Args:
        detector: It is not changed; its classifiers are made ready to score a second time.
    """

    def __init__(self, detector: Detector) -> None:
        self._done: dict[str, Work] = {}
        self._scorer = RegionScorer(detector.members, detector.config, detector.device, detector.rejection)
        layer = detector.rejection.layer if detector.rejection else None
        for members, first in ((self._scorer.first, layer), (self._scorer.others, None)):
            members[:] = [
                CountingMember(one, None if index else first, self._done) for index, one in enumerate(members)
            ]
        self._settings = detector.config.proposals.multibox
        self._multibox = load_multibox(find_multibox(self._settings.weights)) if self._settings.weights else None

    def count(self, image: Image, boxes: Boxes) -> dict[str, Work]:
        """Score an image's boxes [N, 4] px and return the work of the stages of UNITS that ran."""
        self._done.clear()
        self._scorer.score([View(image, boxes)])
        if self._multibox:
            network, size = self._multibox.network, self._multibox.size
            height, width, _ = image.shape
            seen = len(multibox_views(width, height, network.head.config.priors, crops=self._settings.crops))
            x = _empty(seen, 3, size, size)
            self._done["MultiBox"] = Work(seen, multiply_adds(on_meta(network), lambda run: run(x)))
        return dict(self._done)


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")
