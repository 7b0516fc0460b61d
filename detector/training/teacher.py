"""A teacher: a detector that scores the windows of a training once, before it begins.

In: a detector's config, a table of windows.  Out: the probabilities that it gives to each window.
From them come hard negatives (mining.py) and the targets of distillation (distillation.py). They are kept on disk by
the content of the images, so that a stopped pass continues and another training with this teacher reads them.
A window's probabilities do not depend on the other windows of its image: the cascade lets near-copies pass, and those
that it or a rejection layer rejects have the first model's or the layer's verdict. Proposals, box regression and
suppression of the detector are not used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.checkpoint import find_checkpoint
from detector.config import config_to_dict
from detector.data.ground_truth import ClassTable, Dataset, Record, listed
from detector.data.image import Image
from detector.experiments.score_store import ScoreStore
from detector.model_files import CheckpointError, file_sha256
from detector.pipeline import Detector
from detector.progress import progress
from detector.rejection import fingerprint
from detector.settings import DetectorConfig
from detector.training.mining import MiningConfig, Unlabelled, mine
from detector.training.ranks import Ranks
from detector.training.record import TrainingError
from detector.training.windows import Windows
from proposals.boxes import Boxes
from proposals.locking import InUseError, Lock
from proposals.settings import ProposalConfig


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a training takes from its teacher.

    Attributes:
        windows: W windows to draw from, with the teacher's probabilities if they are asked for.
        hard: [W] bool, hard negatives.
        left_out: Number of windows left out.
        unlabelled: Places that look like unlabelled objects, best first.
        digest: Digest of the probabilities.
        unread: A line for each image that could not be read; its windows are left out.
    """

    windows: Windows
    hard: NDArray[np.bool_]
    left_out: int
    unlabelled: list[Unlabelled]
    digest: str
    unread: list[str]


class Teacher:
    """A detector whose probabilities are kept on disk.

    Args:
        config: The detector.
        classes: Classes of the training, in its order. Further classes of the detector count as background.
        cache: Folder in which the probabilities are kept.
        ranks: The processes; the first one scores.

    Raises:
        CheckpointError: The detector lacks a class, or its weights are missing.
        DeviceError: The device lacks its precision.
    """

    def __init__(self, config: DetectorConfig, classes: ClassTable, cache: Path, ranks: Ranks) -> None:
        # Else the score of a window would depend on the others.
        alone = replace(config.cascade, near=1.0, best=0, second_pass=False)
        config = replace(config, proposals=ProposalConfig(), regression=False, cascade=alone, operating_points="")
        self.ranks = ranks
        self._detector = Detector.load(config, device=str(ranks.device))
        self._columns = 1 + classes.labels_in(self._detector.classes)
        absent = [name for name, column in zip(classes.names, self._columns.tolist(), strict=True) if not column]
        if absent:
            raise CheckpointError(
                f"teacher ({', '.join(config.models)}) lacks classes of the training: {listed(absent)}; it knows "
                f"{listed(self._detector.classes.names)}. Name a detector that was trained on all of them"
            )
        self._store = ScoreStore(cache / f"scores-{ranks.from_first(_key(self._detector))}", half=True)

    def lesson(
        self,
        dataset: Dataset,
        windows: Windows,
        mining: MiningConfig,
        background_iou: float,
        *,
        distilled: bool = False,
    ) -> Lesson:
        """Score the windows that were not scored before, and mine them.

        Args:
            dataset: The images.
            windows: Its table of windows, as collect_windows makes it.
            mining: Thresholds.
            background_iou: IoU below which a window is background.
            distilled: Whether the windows keep the probabilities.

        Raises:
            TrainingError: Another process scores with this teacher.
        """
        unread = self.ranks.from_first(self._score(dataset, windows) if self.ranks.leads else None)
        gone = [index for index, _ in unread]
        windows = windows[~np.isin(windows.image, gone)]
        probabilities = self._read(dataset, windows)
        mined = mine(dataset, windows, probabilities, mining, background_iou)
        digest = hashlib.sha256(probabilities.tobytes()).hexdigest()
        if distilled:
            windows = replace(windows, teacher=probabilities)
        kept = ~mined.left_out
        lines = [line for _, line in unread]
        left_out = int(mined.left_out.sum())
        return Lesson(windows[kept], mined.hard[kept], left_out, mined.unlabelled, digest, lines)

    def _score(self, dataset: Dataset, windows: Windows) -> list[tuple[int, str]]:
        """Score what is missing; return the position of each image that cannot be read, with a line about it."""
        boxes_of = dict(_by_image(windows))
        unread, todo = [], []
        with self._locked():
            for index, rows in progress(boxes_of.items(), f"known scores of {dataset.name}"):
                try:
                    if len(self._store.missing(_content(dataset, index), windows.boxes[rows])):
                        todo.append(index)
                except OSError as error:
                    unread.append((index, f"{dataset.records[index].path}: {(error.strerror or str(error)).lower()}"))

            def prepare(index: int) -> tuple[Image, Boxes]:
                image = dataset.records[index].read()
                return image, self._store.missing(_content(dataset, index), windows.boxes[boxes_of[index]])

            scored = self._detector.score_many(todo, prepare)
            done = len(boxes_of) - len(todo)
            for index, one in progress(scored, f"teacher on {dataset.name}", total=len(boxes_of), initial=done):
                if isinstance(one, Exception):
                    unread.append((index, str(one)))
                else:
                    self._store.add(_content(dataset, index), one.boxes, one.scores)
        return unread

    def _read(self, dataset: Dataset, windows: Windows) -> NDArray[np.float16]:
        """Return the probabilities of scored windows, [W, K + 1], in the training's order of classes."""
        result = np.empty((len(windows), 1 + len(self._columns)), np.float16)
        for index, rows in _by_image(windows):
            found = self._store.scores(_content(dataset, index), windows.boxes[rows]).probabilities
            result[rows, 1:] = found[:, self._columns]
            result[rows, 0] = np.delete(found, self._columns, axis=1).sum(axis=1)
        return result

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._store.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = Lock(self._store.folder / ".lock")
        except InUseError as error:
            raise TrainingError(
                f"{self._store.folder}: another training scores its windows with this teacher; start again when it has "
                "finished that"
            ) from error
        try:
            yield
        finally:
            lock.release()


def _by_image(windows: Windows) -> Iterator[tuple[int, slice]]:
    """Yield each image that has windows, and their rows."""
    indices, starts = np.unique(windows.image, return_index=True)
    for index, start, stop in zip(indices.tolist(), starts, [*starts[1:], len(windows)], strict=True):
        yield index, slice(int(start), int(stop))


def _content(dataset: Dataset, index: int) -> bytes:
    record: Record = dataset.records[index]
    return record.path.read_bytes()


def _key(detector: Detector) -> str:
    """Return a text that differs for detectors that give other probabilities."""
    config, rejection = detector.config, detector.rejection
    settings = config_to_dict(config)
    decisive = {
        "weights": [file_sha256(find_checkpoint(name)) for name in config.models],
        "rejection": [fingerprint(rejection.layer), rejection.threshold] if rejection else None,
        "cascade": settings["cascade"],
        "mirror": config.mirror,
        "precision": detector.precision,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
