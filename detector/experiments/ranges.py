"""Ranges of a network's activations, for precision=int8: what any weights need once, found on some photographs.

In: a weights file, images.  Out: the largest activation of each layer of its trunk that a byte represents.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from detector.checkpoint import RegionClassifier, load_checkpoint
from detector.data.image import Image
from detector.model_files import MULTIBOX_FORMAT, weights_format
from detector.multibox import load_multibox
from detector.network.folding import fold_batch_norm
from detector.network.input import network_input
from detector.network.quantised import calibrate
from detector.regions.maps import SharedNetwork
from detector.regions.warp import warp
from detector.views import View
from proposals.boxes import Boxes

BATCH = 7  # of the 14 regions of an image


def fit_ranges(weights: Path, images: Iterable[Image]) -> dict[str, float]:
    """Find the ranges of the activations of a region classifier or MultiBox.

    Args:
        weights: Its file.
        images: Some dozens of photographs [H, W, 3] uint8 RGB as the detector will see them, none of the test data.

    Raises:
        CheckpointError: the file is missing or holds neither.
    """
    if weights_format(weights) == MULTIBOX_FORMAT:
        model = load_multibox(weights)

        def propose_all() -> None:
            for image in images:
                model.propose([image], limit=1, max_iou=1.0, crops=1)

        return calibrate(model.network.trunk, propose_all)
    classifier = load_checkpoint(weights)
    return _shared(classifier, images) if classifier.shared else _warped(classifier, images)


def _warped(classifier: RegionClassifier, images: Iterable[Image]) -> dict[str, float]:
    network = fold_batch_norm(copy.deepcopy(classifier.network).eval())

    def run() -> None:
        with torch.inference_mode():
            for image in images:
                boxes = _some_boxes(image)
                for start in range(0, len(boxes), BATCH):
                    part = boxes[start : start + BATCH]
                    regions = warp(image, part, classifier.regions, classifier.convention.mean)
                    network.trunk(network_input(regions, classifier.convention, "cpu"))

    return calibrate(network.trunk, run)


def _shared(classifier: RegionClassifier, images: Iterable[Image]) -> dict[str, float]:
    assert classifier.shared is not None
    cpu = torch.device("cpu")
    network = SharedNetwork(classifier.network, classifier.convention, classifier.regions, classifier.shared, cpu)

    def run() -> None:
        with torch.inference_mode():
            for image in images:
                boxes = _some_boxes(image)
                (maps,) = network.trunk([View(image, boxes)])
                network.heads(network.cut(maps, boxes))

    return calibrate(network.network.trunk, run)


def _some_boxes(image: Image) -> Boxes:
    """The whole image, its quarters and its ninths: [14, 4] px."""
    height, width, _ = image.shape
    shares = [
        (x / parts, y / parts, (x + 1) / parts, (y + 1) / parts)
        for parts in (1, 2, 3)
        for y in range(parts)
        for x in range(parts)
    ]
    return np.array(shares, np.float32) * np.array([width, height] * 2, np.float32)
