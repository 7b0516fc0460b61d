"""START HERE: the whole detector, image -> proposals -> warped regions -> scores -> NMS -> detections (paper §8).

In: image [H, W, 3] uint8 RGB.  Out: Detections, best first.
Each proposed box is classified on its own, as in R-CNN; several classifiers make the paper's ensemble by the mean of
their softmax, followed by one suppression. Box regression, mirrored regions, soft-NMS and a cascade, which the paper
does not have, are off unless a preset asks for them; configs/default.yaml does.

N boxes, K classes, S side of a region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detector.checkpoint import CheckpointError, RegionClassifier, find_checkpoint, load_checkpoint
from detector.config import load_config
from detector.data.ground_truth import ClassTable
from detector.data.image import Image
from detector.detections import Detections
from detector.device import choose_device
from detector.multibox import load_source
from detector.postprocess import suppress
from detector.regression import place
from detector.scoring import RegionScorer, timed
from detector.settings import DetectorConfig
from proposals.boxes import Boxes
from proposals.errors import UserError
from proposals.result import Proposals
from proposals.sources import propose


@dataclass(frozen=True)
class Run:
    """One image's way through the detector.

    Attributes:
        boxes: [N, 4] px, the proposals.
        placed: [N, K, 4] px, where regression places each class in them, or boxes itself.
        scores: [N, K + 1] mean softmax of the members; column 0 is background.
        detections: what suppression left.
        seconds: spent in each stage: proposals, warp, network, suppression.
    """

    boxes: NDArray[np.float32]
    placed: Boxes
    scores: NDArray[np.float32]
    detections: Detections
    seconds: dict[str, float]


class Detector:
    """Finds objects of K classes in photographs.

    Args:
        members: the region classifiers of the ensemble, at least one, all with the same classes.
        config: proposals, suppression and batch size.
        device: where the networks run.

    Raises:
        ValueError: no member, members that know different classes, or a backend that the device does not have.
        CheckpointError: the config names MultiBox weights that are not there.
        ImportError: the config wants onnxruntime, which is not installed.
    """

    def __init__(
        self, members: Sequence[RegionClassifier], config: DetectorConfig, device: torch.device | str = "cpu"
    ) -> None:
        if not members:
            raise ValueError("a detector needs at least one region classifier")
        for number, member in enumerate(members[1:], 2):
            if member.classes != members[0].classes:
                raise UserError(
                    f"model {number} of {len(members)} ({_name(config, number - 1)}) tells {len(member.classes)} "
                    f"classes apart that are not the {len(members[0].classes)} of the first ({_name(config, 0)})"
                )
        self.device = torch.device(device)
        self.members = list(members)
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
            ConfigError, CheckpointError, ValueError: one line that says what is missing and what to do.

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

    def __call__(self, image: Image) -> Detections:
        """Detect the objects of an image [H, W, 3] uint8 RGB."""
        return self.run(image).detections

    def run(self, image: Image, boxes: Boxes | None = None) -> Run:
        """Detect, and keep what happened on the way.

        Args:
            image: [H, W, 3] uint8 RGB.
            boxes: [N, 4] px, proposals to use instead of the detector's own.
        """
        seconds: dict[str, float] = {}
        if boxes is None:
            with timed(seconds, "proposals"):
                boxes = self.propose(image).boxes  # [N, 4]
        scores, placed = self.classify(image, boxes, seconds)  # [N, K + 1], [N, 4] or [N, K, 4]
        with timed(seconds, "suppression"):
            detections = suppress(placed, scores, self.config.suppression)
        return Run(boxes.astype(np.float32), placed, scores, detections, seconds)

    def propose(self, image: Image) -> Proposals:
        """The boxes to classify, of all the sources that the config names."""
        return propose(image, self.config.proposals, multibox=self._multibox, threads=torch.get_num_threads())

    def classify(
        self, image: Image, boxes: Boxes, seconds: dict[str, float] | None = None
    ) -> tuple[NDArray[np.float32], Boxes]:
        """As score, and where regression places each class in the boxes, [N, K, 4] px; without it the boxes."""
        rows = self._scorer(image, boxes, seconds)
        return place(boxes, rows, len(self.classes), image.shape[1], image.shape[0])

    def score(self, image: Image, boxes: Boxes, seconds: dict[str, float] | None = None) -> NDArray[np.float32]:
        """Mean softmax of the members on each warped box; [H, W, 3], [N, 4] px -> [N, K + 1], column 0 background.

        Time spent is added to seconds["warp"] and seconds["network"].
        """
        return self.classify(image, boxes, seconds)[0]


def _name(config: DetectorConfig, index: int) -> str:
    return config.models[index] if index < len(config.models) else "unnamed"
