"""START HERE: the whole detector, image -> proposals -> warped regions -> scores -> NMS -> detections (paper §8).

In: image [H, W, 3] uint8 RGB.  Out: Detections, best first.
Each proposed box is classified on its own, as in R-CNN: warped to a square, or cut from maps of the whole image.
Several classifiers make the paper's ensemble by the mean of their softmax, followed by one suppression. Beyond the
paper are regions cut from maps, box regression, mirrored regions, soft-NMS and the cascade, off unless a preset asks
for them; configs/default.yaml does.

N boxes, K classes, S side of a region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detector.checkpoint import CheckpointError, RegionClassifier, find_checkpoint, load_checkpoint
from detector.class_order import in_order_of
from detector.config import load_config
from detector.data.ground_truth import ClassTable
from detector.detections import Detections
from detector.device import choose_device
from detector.members import timed
from detector.multibox import load_source
from detector.scores import RegionScores
from detector.scoring import RegionScorer
from detector.settings import DetectorConfig
from detector.suppression import suppress
from proposals.boxes import Boxes, floating
from proposals.merging import propose
from proposals.own import check_source
from proposals.result import Proposals
from proposals.selective.colour import to_rgb


@dataclass(frozen=True, eq=False)
class Run:
    """What each stage of the detector made of one image.

    Attributes:
        boxes: [N, 4] px, the proposals.
        scores: Mean over the members, of each proposal.
        class_boxes: [N, K, 4] px, the box of each class: moved by box regression, or the proposals themselves.
        detections: What suppression left.
        seconds: Time spent in each stage: proposals, warp, network, suppression.
    """

    boxes: NDArray[np.float32]
    scores: RegionScores
    class_boxes: Boxes
    detections: Detections
    seconds: dict[str, float]


class Detector:
    """Finds objects of K classes in photographs.

    Args:
        members: the region classifiers of the ensemble, at least one, all of the same classes, in any order.
        config: proposals, suppression and batch size.
        device: where the networks run.

    The members stay as they are: copies of their networks score, so that two detectors may share them.

    Raises:
        ValueError: no member.
        CheckpointError: members that know different classes, or one without what the config asks of it; MultiBox
            weights that are not there.
        DeviceError: a backend or precision that the device does not have.
        SourceError, StoreError: no such source of own boxes.
        ImportError: the config wants onnxruntime, which is not installed.
    """

    def __init__(
        self, members: Sequence[RegionClassifier], config: DetectorConfig, device: torch.device | str = "cpu"
    ) -> None:
        if not members:
            raise ValueError("a detector needs at least one region classifier")
        self.device = torch.device(device)
        for name, where in config.proposals.own.items():
            check_source(name, where)
        first = f"the first ({_name(config, 0)})"
        self.members = [
            in_order_of(
                member, members[0].classes, (f"model {number} of {len(members)} ({_name(config, number - 1)})", first)
            )
            for number, member in enumerate(members, 1)
        ]
        self._scorer = RegionScorer(self.members, config, self.device)
        self._multibox = (
            load_source(config.proposals.multibox, self.device) if config.proposals.multibox.weights else None
        )
        self.config = config

    @classmethod
    def load(cls, config: DetectorConfig | str | Path = "default", *, device: str = "auto") -> Detector:
        """A detector ready to use.

        Args:
            config: settings, a YAML file of them, or the name of a preset; the default needs nothing but this package.
            device: auto, cpu, cuda, cuda:N or mps.

        Raises:
            ConfigError, CheckpointError, DeviceError: one line that says what is missing and what to do.

        >>> from detector import Detector, read_image
        >>> found = Detector.load()(read_image("photo.jpg"))  # doctest: +SKIP
        """
        settings = config if isinstance(config, DetectorConfig) else load_config(DetectorConfig, config)
        members = []
        for number, name in enumerate(settings.models, 1):
            try:
                members.append(load_checkpoint(find_checkpoint(name, len(settings.models))))
            except CheckpointError as error:
                if len(settings.models) == 1:
                    raise
                raise CheckpointError(f"model {number} of {len(settings.models)}: {error}") from error
        return cls(members, settings, choose_device(device))

    @property
    def classes(self) -> ClassTable:
        """The classes that labels refer to."""
        return self.members[0].classes

    def __call__(self, image: NDArray[Any], *, content: bytes | None = None) -> Detections:
        """Detect the objects of an image; see run."""
        return self.run(image, content=content).detections

    def run(self, image: NDArray[Any], boxes: Boxes | None = None, *, content: bytes | None = None) -> Run:
        """Detect, and keep what happened on the way.

        Args:
            image: [H, W, 3] uint8 RGB; other arrays as proposals.selective.colour.to_rgb takes them.
            boxes: [N, 4] px, proposals to use instead of the detector's own.
            content: the bytes of the image's file, by which a store of own boxes (proposals.own) knows it.

        Raises:
            ValueError: the image is none that to_rgb takes, or a box is not finite, has no area or lies outside it.
            SourceError, StoreError: a source of own boxes does not know the image, or gives no boxes.
        """
        image = to_rgb(image)
        height, width, _ = image.shape
        seconds: dict[str, float] = {}
        if boxes is None:
            with timed(seconds, "proposals"):
                boxes = self.propose(image, content=content).boxes  # [N, 4]
        boxes = floating(np.asarray(boxes))
        scores = self.score(image, boxes, seconds)
        with timed(seconds, "suppression"):
            class_boxes = scores.boxes(boxes, width, height)  # [N, K, 4]
            detections = suppress(class_boxes, scores.probabilities, self.config.suppression)
        return Run(boxes.astype(np.float32), scores, class_boxes, detections, seconds)

    def propose(self, image: NDArray[Any], *, content: bytes | None = None) -> Proposals:
        """The boxes to classify, of all the sources that the config names; arguments as run takes them."""
        return propose(
            image, self.config.proposals, multibox=self._multibox, content=content, threads=torch.get_num_threads()
        )

    def score(self, image: NDArray[Any], boxes: Boxes, seconds: dict[str, float] | None = None) -> RegionScores:
        """Score boxes [N, 4] px of an image; time spent is added to seconds["warp"] and seconds["network"]."""
        return self._scorer(to_rgb(image), floating(np.asarray(boxes)), seconds)


def _name(config: DetectorConfig, index: int) -> str:
    return config.models[index] if index < len(config.models) else "unnamed"
