"""Give a trained region classifier its box regression (R-CNN, appendix C).

In: the best classifier of a run, and the windows of its images that overlap an object by 0.6 or more.
Out: the same file with a regression layer, and how well windows of the val images cover their objects with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.checkpoint import load_checkpoint, save_checkpoint
from detector.device import autocast, training_precision
from detector.network.googlenet import GoogLeNet, regression_features
from detector.progress import progress
from detector.regions.offsets import apply_offsets, fit_regression, offsets_to
from detector.training.record import TrainingError
from detector.training.region_batches import RegionBatches
from detector.training.regions import FineTuning
from detector.training.windows import BACKGROUND, Windows
from detector.training.workers import load
from proposals.boxes import Boxes, iou

NEAR = 0.6  # R-CNN: overlap from which a window tells where its object is


def add_regression(task: FineTuning, path: Path) -> tuple[float, float] | None:
    """Fit the box-regression layer and write the classifier with it.

    Args:
        task: The training: its images, windows and settings.
        path: File of the classifier.

    Returns:
        Mean IoU of the val windows with their objects before and after; None if the file has such a layer already.

    Raises:
        TrainingError: no window is near an object.
    """
    classifier = load_checkpoint(path)
    if classifier.network.regression is not None:
        return None
    network = classifier.network.to(task.ranks.device)
    train = _near_objects(task, network, task.train, "regression")
    classes, ridge = len(classifier.classes), task.config.regression_ridge
    layer = fit_regression(train.features, offsets_to(train.boxes, train.objects), train.labels, classes, ridge)
    val = _near_objects(task, network, task.val, "its measure")
    with torch.inference_mode():
        offsets = layer(val.features).numpy().reshape(len(val.boxes), classes, 4)
    rows = np.arange(len(val.boxes))
    after = apply_offsets(val.boxes, offsets, np.inf, np.inf)[rows, val.labels]
    classifier.network.set_regression(layer)
    save_checkpoint(path, replace(classifier, network=network.cpu()))
    return _mean_iou(val.boxes, val.objects), _mean_iou(after, val.objects)


@dataclass(frozen=True)
class _Fitted:
    """W windows near an object: their objects [W, 4], the network's features [W, F], labels [W] in 0..K - 1."""

    boxes: NDArray[np.float64]
    objects: NDArray[np.float64]
    labels: NDArray[np.int64]
    features: Tensor


def _near_objects(task: FineTuning, network: GoogLeNet, examples: RegionBatches, label: str) -> _Fitted:
    windows = _near(examples.sampler.windows, task.config.regression_windows, task.config.seed)
    ordered = examples.in_order(windows)
    windows = ordered.sampler.windows
    features = []
    batches = load(ordered, range(len(np.unique(windows.image))), task.config.workers)
    bar = progress(batches, label, total=len(np.unique(windows.image)))
    precision = training_precision(task.config.precision, task.ranks.device)
    with torch.inference_mode(), autocast(task.ranks.device, precision):
        for batch in bar:
            features.append(regression_features(task.features(network, batch).float()).cpu())
    objects = np.empty((len(windows), 4))
    for image in np.unique(windows.image):
        rows = np.flatnonzero(windows.image == image)
        there: Boxes = examples.dataset.records[image].boxes
        objects[rows] = there[iou(windows.boxes[rows].astype(np.float64), there).argmax(axis=1)]
    labels = windows.labels.astype(np.int64) - 1
    return _Fitted(windows.boxes.astype(np.float64), objects, labels, torch.cat(features).clone())


def _near(windows: Windows, each: int, seed: int) -> Windows:
    """At most `each` windows of each class that are near an object, drawn at random."""
    generator = np.random.default_rng(seed)
    near = np.flatnonzero((windows.labels > BACKGROUND) & (windows.overlaps >= NEAR))
    if len(near) == 0:
        raise TrainingError(f"no window overlaps an object by {NEAR}; set regression_windows=0")
    labels = windows.labels[near]
    chosen = [generator.permutation(near[labels == label])[:each] for label in np.unique(labels)]
    return windows[np.sort(np.concatenate(chosen))]


def _mean_iou(boxes: Boxes, objects: Boxes) -> float:
    return float(np.mean([iou(a[None], b[None])[0, 0] for a, b in zip(boxes, objects, strict=True)]))
