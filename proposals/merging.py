"""The package's one entry for a detector: image -> boxes in the image's own pixels, of one or several sources.

The paper (§8) joins selective search, its superpixels twice the usual size, with 200 boxes of MultiBox. Here MultiBox
comes first, then sources of one's own, then selective search; a box too much like one of an earlier source is left out.
Selective search runs on the image resized to width 500, as R-CNN ran it on ILSVRC, so that superpixels mean the same on
every photograph; the boxes are mapped back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from proposals.boxes import clip, iou, scale
from proposals.own import own_boxes
from proposals.result import MULTIBOX, SELECTIVE_SEARCH, Found, Proposals, Source, source_names
from proposals.selective.colour import to_rgb
from proposals.selective.search import selective_search
from proposals.settings import ProposalConfig

TALLEST = 8
"""Ours: the resized image is at most this many times config.width high; a column of pixels would fill the memory."""


def propose(
    image: NDArray[Any],
    config: ProposalConfig,
    *,
    multibox: Source | None = None,
    content: bytes | None = None,
    threads: int = 1,
) -> Proposals:
    """Boxes where objects might be.

    Args:
        image: [H, W, 3] uint8 RGB; other arrays as proposals.selective.colour.to_rgb takes them.
        config: the settings.
        multibox: the network's proposals, where the config wants them.
        content: the bytes of the image's file, by which a store of own boxes knows it.
        threads: of selective search; the result is the same for any number.

    Returns:
        boxes inside the image, in its own pixels; none of selective search for a tiny image.

    Raises:
        ValueError: the image is none that to_rgb takes; a source that the config names is not there, or does not give
            boxes and scores.
        ImportError: the config's method needs what is not installed.
    """
    rgb = to_rgb(image)
    names = source_names(config)
    found: dict[str, Found] = {}
    if config.multibox.weights:
        if multibox is None:
            raise ValueError("proposals.multibox.weights is set, and nobody passed the network that has them")
        found[MULTIBOX] = multibox(rgb)
    for name, where in config.own.items():
        found[name] = own_boxes(name, where, rgb, content)
    if config.selective_search:
        found[SELECTIVE_SEARCH] = _selective_search(rgb, config, threads)
    return merge(
        [(names.index(name), *part) for name, part in found.items()], near=config.near, limit=config.max_boxes or None
    )


def merge(
    parts: Sequence[tuple[int, NDArray[np.float32], NDArray[np.float32]]], *, near: float, limit: int | None
) -> Proposals:
    """Join the boxes of several sources.

    Args:
        parts: (number of the source, boxes [N, 4] px, scores [N]), the most important source first.
        near: a box is left out if it overlaps one of an earlier source by more than this; within a source all stay.
        limit: at most so many; None for all.
    """
    boxes, scores, sources = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.uint8)
    for number, more, more_scores in parts:
        new = np.ones(len(more), np.bool_)
        if len(boxes) and len(more) and near < 1:
            new = iou(more, boxes).max(axis=1) <= near
        boxes = np.concatenate([boxes, more[new].astype(np.float32)])
        scores = np.concatenate([scores, more_scores[new].astype(np.float32)])
        sources = np.concatenate([sources, np.full(int(new.sum()), number, np.uint8)])
    return Proposals(boxes[:limit], scores[:limit], sources[:limit])


def _selective_search(rgb: NDArray[np.uint8], config: ProposalConfig, threads: int) -> Found:
    height, width, _ = rgb.shape
    factor = min(config.width / width, TALLEST * config.width / height) if config.width else 1.0
    if factor != 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=method), dtype=np.uint8)
    boxes, scores = selective_search(
        rgb,
        method=config.method,
        mode=config.mode,
        superpixel_scale=config.superpixel_scale,
        ranking=config.ranking,
        min_width=config.min_width,
        max_boxes=config.max_boxes or None,
        seed=config.seed,
        threads=threads,
    )
    back = scale(boxes, width / rgb.shape[1], height / rgb.shape[0])
    return clip(back, width, height).astype(np.float32), scores
