"""A classifier whose scores of boxes are on disk, as the member of any ensemble that contains it.

In: an image, boxes in it.  Out: RegionScores, read from a ScoreStore; boxes without scores are scored and stored.
Rows of an ablation combine such members as the detector combines its own (detector.scoring.Ensemble).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from detector.checkpoint import find_checkpoint, load_checkpoint
from detector.class_order import in_order_of
from detector.data.ground_truth import Dataset, Record
from detector.device import choose_device, choose_precision
from detector.experiments.score_store import ScoreStore
from detector.members import Member
from detector.progress import progress
from detector.scores import RegionScores
from detector.scoring import RegionScorer
from detector.settings import DetectorConfig
from detector.views import View
from proposals.boxes import Boxes, mirrored
from proposals.store import ProposalStore


class StoredModel:
    """A classifier and the stores of its scores: of proposed boxes and of moved ones, each with their mirror images.

    Args:
        model: A file, or the name of shipped weights.
        dataset: The data set whose order of the classes the scores have.
        device: Name of the device, see `detector.device.choose_device`.
        precision: Number format of the convolutions.
        batch: Number of warped regions scored at a time; None for what suits the device.
        folder: Folder of the cache.

    Attributes:
        regresses: Whether the classifier has a layer of box regression.
    """

    def __init__(
        self, model: str, dataset: Dataset, device: str, *, precision: str, batch: int | None, folder: Path
    ) -> None:
        self.model = model
        path = find_checkpoint(model)
        where = choose_device(device)
        precision = str(choose_precision(precision, where)).removeprefix("torch.")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        classifier = load_checkpoint(path)
        own = classifier.classes
        classifier = in_order_of(classifier, dataset.classes, (model, dataset.name))
        if classifier.classes != own:  # stored scores have the data set's order
            sha256 = hashlib.sha256(f"{sha256} {own.labels_in(dataset.classes).tolist()}".encode()).hexdigest()
        self.regresses = classifier.network.config.regression_cells > 0
        settings = DetectorConfig(batch=batch, precision=precision, regression=self.regresses)
        self.scorer = RegionScorer([classifier], settings, where)
        # Moved boxes apart: a trunk that runs for the few of an image would make its proposed boxes seem slow.
        self._proposed, self._moved = (
            [
                ScoreStore(folder / "region-scores" / f"{sha256[:16]}-{precision}{moved}{side}")
                for side in ("", "-mirror")
            ]
            for moved in ("", "-moved")
        )

    def score_all(self, dataset: Dataset, stores: Sequence[ProposalStore], mirror: bool) -> None:
        """Score all boxes of the proposal stores that have no score yet, or their mirror images."""
        for record in progress(dataset.records, f"{'mirrored ' * mirror}scores of {self.model}"):
            content = record.path.read_bytes()
            boxes = np.concatenate([store.get(record.image_id, content).boxes for store in stores])
            boxes = mirrored(boxes, record.width) if mirror else boxes
            self._proposed[mirror].scores(content, boxes, partial(self.score, record, mirror))

    def score(self, record: Record, mirror: bool, boxes: Boxes) -> RegionScores:
        """Score boxes in the image, or boxes in its mirror image."""
        image = record.read()
        return self.scorer([View(np.ascontiguousarray(image[:, ::-1]) if mirror else image, boxes)])[0]

    def on(self, record: Record, content: bytes, work: Counter[ScoreStore], *, regression: bool, moved: bool) -> Member:
        """Make a member of an ensemble that scores boxes in one image.

        Args:
            record: The image.
            content: Bytes of its file.
            work: Number of boxes that each store gives scores of, which is added to.
            regression: Whether the scores have box offsets.
            moved: Whether the boxes are those of a second pass.
        """
        return _StoredMember(self, record, content, work, regression, self._moved if moved else self._proposed)


class _StoredMember:
    """The member that `StoredModel.on` makes."""

    networks = 1

    def __init__(
        self,
        model: StoredModel,
        record: Record,
        content: bytes,
        work: Counter[ScoreStore],
        regression: bool,
        stores: Sequence[ScoreStore],
    ) -> None:
        self.classifiers = model.scorer.first[0].classifiers
        self._model, self._record, self._content, self._work = model, record, content, work
        self._regression, self._stores = regression, stores

    def score(self, views: Sequence[View], *, reject: bool = True) -> RegionScores:
        """Return the scores of the boxes of the image's view."""
        (view,) = views
        store = self._stores[view.is_mirrored]
        scores = store.scores(self._content, view.boxes, partial(self._model.score, self._record, view.is_mirrored))
        self._work[store] += len(view)
        return scores if self._regression else RegionScores(scores.probabilities)
