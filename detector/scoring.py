"""Boxes -> class probabilities: the ensemble's mean softmax, on request only where the first member saw something.

In: image [H, W, 3] uint8 RGB, boxes [N, 4] px.  Out: [N, K + 1] probabilities, column 0 background.
The paper's entry averages six GoogLeNets on every region. Most regions are background, and the first member says so: in
the cascade the others look at the rest alone, and the mean of a region is over the members that looked. Ours.

No exact bound can do this: what the first of six says leaves a mean of 5/6 open, and even after the fifth nothing below
a threshold of 1/6 is decided.

N boxes, K classes, S side of a region.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.backends import Network, build_backend
from detector.checkpoint import RegionClassifier
from detector.data.image import Image
from detector.device import choose_precision
from detector.googlenet import InputConvention
from detector.regions import RegionConfig, network_input, warp
from detector.settings import CascadeConfig, DetectorConfig
from detector.shared import SharedNetwork
from proposals.boxes import Boxes, mirrored

T = TypeVar("T", Tensor, Boxes)
Probabilities = NDArray[np.float32]
"""[N, K + 1], column 0 background."""


class RegionScorer:
    """The region classifiers of an ensemble, ready to score.

    Args:
        members: at least one, all with the same classes.
        config: batch, backend, precision, mirror and cascade.
        device: where the networks run.

    Raises:
        ValueError: a backend or precision that the device does not have.
        ImportError: the config wants onnxruntime, which is not installed.
    """

    def __init__(self, members: Sequence[RegionClassifier], config: DetectorConfig, device: torch.device) -> None:
        self.members, self.config, self.device = list(members), config, device
        self.batch = config.batch  # a device without the memory for it halves it
        self._networks = [_ready(one, config, device) for one in self.members]

    def __call__(self, image: Image, boxes: Boxes, seconds: dict[str, float] | None = None) -> Probabilities:
        """Score the boxes of an image; time spent is added to seconds["warp"] and seconds["network"]."""
        seconds = {} if seconds is None else seconds
        count = len(self.members)
        if not self.config.cascade.applies or count == 1:
            return self._sum(image, boxes, range(count), seconds) / np.float32(count)
        scores = self._sum(image, boxes, range(1), seconds)
        passing = passes(scores, self.config.cascade)
        scores[passing] += self._sum(image, boxes[passing], range(1, count), seconds)
        scores[passing] /= count
        return scores

    def _sum(self, image: Image, boxes: Boxes, members: range, seconds: dict[str, float]) -> Probabilities:
        """The sum of some members' softmax, which with `mirror` is the mean of a region's and its mirror image's."""
        scores = np.zeros((len(boxes), len(self.members[0].classes) + 1), np.float32)
        warping: list[tuple[RegionClassifier, Network]] = []
        for number in members:
            network = self._networks[number]
            if isinstance(network, SharedNetwork):
                with timed(seconds, "network"), torch.inference_mode():
                    scores += self._cut(network, image, boxes)
            else:
                warping.append((self.members[number], network))
        start = 0
        while warping and start < len(boxes):
            part = slice(start, start + self.batch)
            inputs: dict[tuple[RegionConfig, InputConvention], Tensor] = {}  # members mostly share theirs
            for member, network in warping:
                key = (member.regions, member.convention)
                if key not in inputs:
                    with timed(seconds, "warp"):
                        regions = warp(image, boxes[part], member.regions, member.convention.mean)  # [B, S, S, 3]
                        inputs[key] = network_input(regions, member.convention, self.device)  # [B, 3, S, S]
                with timed(seconds, "network"), torch.inference_mode():
                    softmax = self._softmax(network, inputs[key])
                    if self.config.mirror:
                        softmax = (softmax + self._softmax(network, inputs[key].flip(3))) / 2
                    scores[part] += softmax.cpu().numpy()
            start = part.stop
        return scores

    def _cut(self, network: SharedNetwork, image: Image, boxes: Boxes) -> Probabilities:
        """The softmax of a member whose regions are cut out of one map."""
        views = [(image, boxes)]
        if self.config.mirror:
            views.append((np.ascontiguousarray(image[:, ::-1]), mirrored(boxes, image.shape[1])))
        scores = np.zeros((len(boxes), len(self.members[0].classes) + 1), np.float32)
        for view, places in views:
            logits = partial(network.logits, network.look(view))
            start = 0
            while start < len(places):
                part = slice(start, start + self.batch)
                scores[part] += self._softmax(logits, places[part]).cpu().numpy()
                start = part.stop
        return scores / np.float32(len(views))

    def _softmax(self, network: Callable[[T], Tensor], x: T) -> Tensor:
        """B inputs -> [B, K + 1]; a batch for which the device has no memory is halved, this one and all later."""
        try:
            return network(x).float().softmax(dim=1)
        except torch.OutOfMemoryError:
            if len(x) == 1:
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = (len(x) + 1) // 2
        self.batch = min(self.batch, half)
        return torch.cat([self._softmax(network, x[start : start + half]) for start in range(0, len(x), half)])


def _ready(member: RegionClassifier, config: DetectorConfig, device: torch.device) -> Network | SharedNetwork:
    if member.shared:
        precision = choose_precision(config.precision, device)
        return SharedNetwork(member.network, member.convention, member.regions, member.shared, device, precision)
    size = member.regions.size
    return build_backend(config.backend, member.network, device, size=size, precision=config.precision)


def passes(scores: Probabilities, config: CascadeConfig) -> NDArray[np.int64]:
    """Positions of the regions that the other members look at.

    Args:
        scores: [N, K + 1] of the first member.
        config: from which probability of an object on, and how many at least.
    """
    objects = 1 - scores[:, 0]
    passing = objects > config.threshold
    passing[np.argsort(-objects, kind="stable")[: config.best]] = True
    return np.flatnonzero(passing)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time that the block takes to seconds[stage]."""
    started = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started
