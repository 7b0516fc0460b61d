"""AP of the network in training, as a detector of that one member, on images of val.

In: the averaged network, val images, their proposals.  Out: the column val_ap, and one for each class.
The windows on which val_loss is measured are balanced; a detector scores every proposal, nearly all background, and
drops near-copies. Its regions come from the stored proposals, and greedy suppression has the defaults of
SuppressionConfig; no box regression, rejection or mirror. In float16 trainings it scores in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from torch import nn

from detector.checkpoint import RegionClassifier
from detector.data.dataset import DatasetKind, sources_of
from detector.data.ground_truth import Dataset
from detector.data.image import Image
from detector.detections import Detections
from detector.device import training_precision
from detector.evaluation.protocols import Protocol, ScoringConfig, evaluate_table
from detector.evaluation.results import DetectionTable, class_keys
from detector.evaluation.truth import Truth
from detector.network.googlenet import GoogLeNet
from detector.pipeline import Detector
from detector.progress import progress
from detector.report.training_page import CLASS_AP
from detector.settings import DetectorConfig
from detector.training.ranks import Ranks
from detector.training.record import TrainingError
from detector.training.regions import FineTuneConfig
from proposals.boxes import Boxes


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectionAP:
    """Measures AP after every so many epochs; the processes share the images.

    Attributes:
        classifier: Everything about the detector but its weights.
        dataset: The images to detect on, all fully annotated.
        boxes: [N, 4] px, the proposals of each image.
        protocol: Rules of the score.
        precision: float32 or bfloat16.
        every: Epochs between two measurements; epoch 0 and the last are measured too. 0 measures none.
        epochs: Number of epochs of the training.
        ranks: The processes.
    """

    classifier: RegionClassifier
    dataset: Dataset
    boxes: Sequence[Boxes]
    protocol: Protocol
    precision: str
    every: int
    epochs: int
    ranks: Ranks

    def due(self, epoch: int) -> bool:
        """Whether AP is measured after this epoch."""
        return self.every > 0 and (epoch % self.every == 0 or epoch == self.epochs)

    @property
    def has_objects(self) -> bool:
        """Whether the images have an object that counts."""
        return any((~(record.difficult | record.crowd)).any() for record in self.dataset.records)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Detect on the images; return mean AP as val_ap and that of each class as val_ap/CLASS, all in [0, 1].

        Raises:
            ImageError, DataError: an image can no longer be read.
        """
        member = replace(self.classifier, network=cast(GoogLeNet, network))
        detector = Detector([member], DetectorConfig(precision=self.precision), self.ranks.device)
        truth = Truth.of(self.dataset)
        evaluation = evaluate_table(truth, self.detect(detector, truth), ScoringConfig(protocol=self.protocol))
        keys = class_keys(truth.classes)
        by_class = zip(keys, evaluation.ap.values(), strict=True)
        return {"val_ap": evaluation.mean_ap} | {CLASS_AP + key: ap for key, ap in by_class if ap is not None}

    def detect(self, detector: Detector, truth: Truth) -> DetectionTable:
        """Detect on the images; all processes must call this together, and each gets all detections.

        Args:
            detector: A detector of the classifier's classes.
            truth: The objects of the images.

        Raises:
            ImageError, DataError: an image can no longer be read.
        """
        records = self.dataset.records

        def prepare(index: int) -> tuple[Image, Boxes]:
            return records[index].read(), self.boxes[index]

        found: dict[str, Detections] = {}
        mine = range(len(records))[self.ranks.share]
        for index, scored in progress(detector.score_many(mine, prepare), "val AP", total=len(mine), leave=False):
            if isinstance(scored, Exception):
                raise scored
            found[records[index].image_id] = scored.detections()
        together = {name: one for part in self.ranks.from_all(found) for name, one in part.items()}
        return DetectionTable.from_images(truth, together)


def detection_ap(
    config: FineTuneConfig, classifier: RegionClassifier, val: Dataset, boxes: Sequence[Boxes], ranks: Ranks
) -> DetectionAP:
    """Prepare the measurement of AP, on the images and after the epochs that a configuration names.

    Args:
        config: Settings of the training.
        classifier: The classifier that is trained.
        val: Images of val with the classifier's classes.
        boxes: [N, 4] px, the proposals of each of them.
        ranks: The processes.

    Raises:
        TrainingError: AP is to be measured while training, and these images have no object.
    """
    chosen = [index for index, record in enumerate(val.records) if record.exhaustive]
    if config.ap_images:  # the same for every seed, so that members and runs compare
        chosen = sorted(np.random.default_rng(0).permutation(chosen)[: config.ap_images].tolist())
    records = tuple(val.records[index] for index in chosen)
    precision = str(training_precision(config.precision, ranks.device)).removeprefix("torch.")
    ilsvrc = all(one.kind is DatasetKind.ilsvrc for one in sources_of(config.val))
    result = DetectionAP(
        classifier=classifier,
        dataset=replace(val, records=records),
        boxes=[boxes[index] for index in chosen],
        protocol=Protocol.ilsvrc if ilsvrc else Protocol.voc,
        precision="float32" if precision == "float16" else precision,
        every=config.ap_every,
        epochs=config.epochs,
        ranks=ranks,
    )
    if config.ap_every and not result.has_objects:
        raise TrainingError(
            f"{len(records)} images of {val.name}, on which AP is measured, have no object: raise ap_images"
        )
    return result
