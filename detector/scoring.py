"""Boxes -> class probabilities: the ensemble's mean softmax, on request only where the first member saw something.

In: image [H, W, 3] uint8 RGB, boxes [N, 4] px.  Out: [N, K + 1] probabilities, column 0 background; where the detector
moves boxes, behind them each class's offset (detector.regression), averaged like the rest: [N, K + 1 + 4 K].
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
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.checkpoint import CheckpointError, RegionClassifier
from detector.data.image import Image
from detector.device import choose_precision, free_cached_memory, out_of_memory
from detector.invocation import command
from detector.network.backends import Network, build_backend
from detector.network.input import InputConvention, network_input
from detector.regions.maps import SharedNetwork
from detector.regions.warp import RegionConfig, warp
from detector.settings import CascadeConfig, DetectorConfig
from proposals.boxes import Boxes, check_boxes, mirrored

T = TypeVar("T", Tensor, Boxes)
CUTS = 8  # a region cut out of a map passes a twelfth of the network: so many times as many fit a batch
HALF = np.float32(0.5)  # as a Python number it would make older NumPy's results float64
Rows = NDArray[np.float32]
"""[N, K + 1] probabilities, column 0 background; with regression [N, K + 1 + 4 K], the offsets of each class behind."""


class RegionScorer:
    """The region classifiers of an ensemble, ready to score.

    Args:
        members: at least one, all with the same classes.
        config: batch, backend, precision, regression, mirror and cascade.
        device: where the networks run.

    Raises:
        DeviceError: a backend or precision that the device does not have.
        CheckpointError: regression, and a member without.
        ImportError: the config wants onnxruntime, which is not installed.
    """

    def __init__(self, members: Sequence[RegionClassifier], config: DetectorConfig, device: torch.device) -> None:
        self.members, self.config, self.device = list(members), config, device
        self.width = len(self.members[0].classes) + 1
        if config.regression:
            without = [number for number, one in enumerate(self.members, 1) if one.network.regression is None]
            if without:
                raise CheckpointError(
                    f"regression=true, and model {without[0]} of {len(self.members)} has no regression layer; fit one: "
                    f"{command('train_classifier')} --config regression_voc init=MODEL; "
                    "or take regression=false"
                )
            self.width += 4 * len(self.members[0].classes)
        self.batch = config.batch  # a device without the memory for it halves it
        self._networks = [_ready(one, config, device) for one in self.members]

    def __call__(self, image: Image, boxes: Boxes, seconds: dict[str, float] | None = None) -> Rows:
        """Score the boxes of an image; time spent is added to seconds["warp"] and seconds["network"].

        Raises:
            ValueError: a box is not finite, has no area or lies outside the image.
        """
        check_boxes(boxes, image.shape[1], image.shape[0])
        seconds = {} if seconds is None else seconds
        count = len(self.members)
        if not self.config.cascade.applies or count == 1:
            return self._sum(image, boxes, range(count), seconds) / np.float32(count)
        scores = self._sum(image, boxes, range(1), seconds)
        passing = passes(scores, self.config.cascade)
        scores[passing] += self._sum(image, boxes[passing], range(1, count), seconds)
        scores[passing] /= count
        return scores

    def _sum(self, image: Image, boxes: Boxes, members: range, seconds: dict[str, float]) -> Rows:
        """The sum of some members' rows, which with `mirror` are the mean of a region's and its mirror image's."""
        scores = np.zeros((len(boxes), self.width), np.float32)
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
                    rows = self._rows(network, inputs[key])
                    if self.config.mirror:
                        rows = (rows + mirrored_rows(self._rows(network, inputs[key].flip(3)), self._classes)) * HALF
                    scores[part] += rows
            start = part.stop
        return scores

    def _cut(self, network: SharedNetwork, image: Image, boxes: Boxes) -> Rows:
        """The rows of a member whose regions are cut out of maps of the whole image."""
        views = [(image, boxes)]
        if self.config.mirror:
            views.append((np.ascontiguousarray(image[:, ::-1]), mirrored(boxes, image.shape[1])))
        sums = []
        for view, places in views:
            logits = network.look(view, places)  # maps that do not fit are an error: fewer boxes would not help
            scores = np.zeros((len(boxes), self.width), np.float32)
            start = 0
            while start < len(places):
                part = slice(start, start + CUTS * self.batch)
                scores[part] = self._rows(logits, places[part], CUTS)
                start = part.stop
            sums.append(scores)
        return (sums[0] + mirrored_rows(sums[1], self._classes)) * HALF if sums[1:] else sums[0]

    @property
    def _classes(self) -> int:
        return len(self.members[0].classes)

    def _rows(self, network: Callable[[T], Tensor], x: T, times: int = 1) -> Rows:
        """B inputs, up to so many times what a batch is -> [B, K + 1], the softmax, and what regression says."""
        output = self._output(network, x, times).cpu()
        classes = self._classes + 1
        rows: Rows = torch.cat([output[:, :classes].softmax(dim=1), output[:, classes : self.width]], dim=1).numpy()
        return rows

    def _output(self, network: Callable[[T], Tensor], x: T, times: int) -> Tensor:
        """What the network gives; a batch for which the device has no memory is halved, this one and all later."""
        try:
            return network(x).float()
        except (RuntimeError, MemoryError) as error:
            if len(x) == 1 or not out_of_memory(error):
                raise
        free_cached_memory(self.device)
        half = (len(x) + 1) // 2
        self.batch = min(self.batch, max(1, half // times))
        return torch.cat([self._output(network, x[start : start + half], times) for start in range(0, len(x), half)])


def _ready(member: RegionClassifier, config: DetectorConfig, device: torch.device) -> Network | SharedNetwork:
    if member.shared:
        precision = choose_precision(config.precision, device)
        return SharedNetwork(member.network, member.convention, member.regions, member.shared, device, precision)
    size = member.regions.size
    return build_backend(config.backend, member.network, device, size=size, precision=config.precision)


def mirrored_rows(rows: Rows, classes: int) -> Rows:
    """Rows of mirrored regions as rows of the regions: what regression says of right and left changes sides."""
    result = rows.copy()
    result[:, classes + 1 :: 4] *= -1
    return result


def passes(scores: Rows, config: CascadeConfig) -> NDArray[np.int64]:
    """Positions of the regions that the other members look at.

    Args:
        scores: [N, K + 1 or more] of the first member.
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
