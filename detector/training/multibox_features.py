"""Trunk features that MultiBox's head is trained on, kept on disk between runs.

In: views of images, a trunk.  Out: features [R, 9 C] float16 of the views, and the boxes in them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from detector.config import config_to_dict
from detector.data.content import digests_of
from detector.data.ground_truth import Dataset, Record
from detector.device import autocast, training_precision
from detector.multibox import MultiBoxModel, warp_view
from detector.network.input import network_input
from detector.progress import progress
from detector.training.multibox import Views, shares
from detector.training.ranks import Ranks
from detector.training.task import Batch
from detector.training.workers import index_at, load
from proposals.files import write_whole
from proposals.locking import Lock
from proposals.multibox.head import pool

PART = 8  # images per pass of the trunk
VERSION = 2  # of the files in the cache
SAVE_SECONDS = 30  # between two points from which an interrupted computation continues


class Features(TorchDataset[Any]):
    """Trunk features of R views, and a stream of passes over them, each in an order of its own.

    Args:
        views: The views that the features were computed from.
        features: [R, 9 C] float16, of the positions 0..R - 1 of the stream of views.
        boxes: [R, M', 4] boxes of the views, padded with 0.
        counts: [R] numbers of boxes.
    """

    def __init__(self, views: Views, features: Tensor, boxes: Tensor, counts: Tensor) -> None:
        self.views, self.dataset = views, views.dataset
        self.features, self.boxes, self.counts = features, boxes, counts

    def rows(self, positions: range) -> Batch:
        """Take features, boxes and numbers of boxes at positions in the stream."""
        chosen = [self.row(position) for position in positions]
        return self.features[chosen], self.boxes[chosen], self.counts[chosen]

    def row(self, position: int) -> int:
        """Row of the features at a position in the stream."""
        return index_at(self.views.config.seed, position, len(self.counts))

    def index(self, position: int) -> int:
        """Index of the image at a position in the stream."""
        return self.views.index(self.row(position))


def whole_inputs(records: Sequence[Record], model: MultiBoxModel, device: torch.device) -> Tensor:
    """Whole images as inputs of the network, [N, 3, S, S] float32."""
    images = [record.read() for record in records]
    squares = [warp_view(image, (0, 0, image.shape[1], image.shape[0]), model.size) for image in images]
    return network_input(np.stack(squares), model.convention, device)


def val_features(
    dataset: Dataset, model: MultiBoxModel, ranks: Ranks, precision: torch.dtype = torch.float32
) -> Tensor:
    """Compute trunk features of this process's share of whole images; [N, 9 C] float16."""
    records = dataset.records[ranks.share]
    features = torch.empty(len(records), model.network.head.fc1.in_features, dtype=torch.float16)
    starts = range(0, len(records), PART)
    with torch.inference_mode(), autocast(ranks.device, precision):
        for start in progress(starts, "val features", "batch"):
            x = whole_inputs(records[start : start + PART], model, ranks.device)
            features[start : start + PART] = pool(model.network.trunk(x)).half().cpu()
    return features


def cached_features(views: Views, model: MultiBoxModel, weights: str, ranks: Ranks) -> Features:
    """Run the trunk once over `passes` views of each training image, or take the features of an earlier run.

    The cache is keyed by all that decides the features: contents of the images, boxes, trunk, settings of the views.
    Other settings of the head and images that were moved find them again; a corrected box does not.

    Args:
        views: Views of the training images.
        model: The model whose trunk is used.
        weights: SHA-256 of the trunk's file.
        ranks: The processes; the first computes, the others wait.

    Raises:
        InUseError: another run is computing the same features.
    """
    count = len(views.dataset) * views.config.passes
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "features": ((count, model.network.head.fc1.in_features), "<f2"),
        "boxes": ((count, views.most, 4), "<f4"),
        "counts": ((count,), "<i8"),  # plus 1: 0 is not computed yet
    }
    folder = None
    if ranks.leads:
        precision = training_precision(views.config.precision, ranks.device)
        folder = Path(views.config.cache) / _features_key(views, weights, str(precision))
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder / ".lock")
        try:
            _compute_features(views, model, _open_arrays(folder, shapes), ranks, precision)
        finally:
            lock.release()
    folder = ranks.from_first(folder)
    # Memory-mapped: ImageNet's would not fit into memory.
    arrays = [torch.from_numpy(np.lib.format.open_memmap(folder / f"{name}.npy", mode="c")) for name in shapes]
    return Features(views, arrays[0], arrays[1], arrays[2] - 1)


def _features_key(views: Views, weights: str, precision: str) -> str:
    names = ("size", "whole", "crop_area", "crop_ratio", "visible", "distortion", "seed", "passes")
    settings = {name: value for name, value in config_to_dict(views.config).items() if name in names}
    records = views.dataset.records
    images = digests_of([record.path for record in records])
    boxes = hashlib.sha256()
    for record in records:
        boxes.update(f"{len(shares(record))}:".encode() + shares(record).astype("<f8").tobytes())
    key = [VERSION, weights, precision, settings, images, boxes.hexdigest()]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _open_arrays(folder: Path, shapes: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, NDArray[Any]]:
    """Open the files of the cache for writing; all are made anew if one is missing, damaged or has another shape."""
    paths = {name: folder / f"{name}.npy" for name in shapes}
    try:
        # For reading first: opened for writing, a truncated file is filled up with zeros.
        arrays: dict[str, Any] = {name: np.lib.format.open_memmap(path, mode="r") for name, path in paths.items()}
        whole = all((array.shape, array.dtype.str) == shapes[name] for name, array in arrays.items())
    except (OSError, ValueError, EOFError):
        whole = False
    for name, (shape, dtype) in shapes.items() if not whole else ():
        paths[name].unlink(missing_ok=True)
        with write_whole(paths[name]) as path:
            np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
            _reserve(path)
    return {name: np.lib.format.open_memmap(path, mode="r+") for name, path in paths.items()}


def _reserve(path: Path) -> None:
    """Allocate a file's space: a disk that fills up under a memory map kills the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise


def _compute_features(
    views: Views, model: MultiBoxModel, arrays: Mapping[str, Any], ranks: Ranks, precision: torch.dtype
) -> None:
    """Fill in the missing rows, which are the last ones."""
    features, boxes, counts = (arrays[name] for name in ("features", "boxes", "counts"))
    done, count = int((counts > 0).sum()), len(counts)
    rows = [range(start, min(start + PART, count)) for start in range(done, count, PART)]
    pending = counts.copy()
    saved = time.monotonic()

    def save() -> None:  # a row counts as computed only when it is on disk
        features.flush()
        boxes.flush()
        counts[:] = pending
        counts.flush()

    try:
        with torch.inference_mode(), autocast(ranks.device, precision):
            bar = progress(load(views, rows, views.config.workers), "features", "batch", total=len(rows))
            for row, (squares, some_boxes, some_counts) in zip(rows, bar, strict=True):
                x = network_input(squares.numpy(), model.convention, ranks.device)
                part = slice(row.start, row.stop)
                features[part], boxes[part] = pool(model.network.trunk(x)).half().cpu().numpy(), some_boxes.numpy()
                pending[part] = some_counts.numpy() + 1
                if time.monotonic() - saved > SAVE_SECONDS:
                    save()
                    saved = time.monotonic()
    finally:
        save()
