"""The entry of the package: `propose`, image -> boxes in the image's own pixels, from one or several sources.

The paper (§8) joins selective search, with superpixels of twice the usual size, with 200 boxes of MultiBox. Here
MultiBox comes first, then your own sources, then selective search; a box that nearly equals a box of an earlier source
is dropped. Selective search runs on the image resized to width 500, as R-CNN ran it on ILSVRC, so that superpixels mean
the same on every image; its boxes are mapped back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from proposals.boxes import clip, iou, scale
from proposals.own import own_boxes
from proposals.result import MULTIBOX, SELECTIVE_SEARCH, Found, Proposals, Source, source_names
from proposals.selective.baselines import package_boxes
from proposals.selective.colour import to_rgb
from proposals.selective.search import configured_search, rank
from proposals.settings import ProposalConfig

TALLEST = 8
"""Largest height of the resized image as a multiple of its width (ours): a column of pixels would fill the memory."""


def propose(
    image: NDArray[Any],
    config: ProposalConfig,
    *,
    multibox: Source | None = None,
    content: bytes | None = None,
    threads: int = 1,
) -> Proposals:
    """Propose boxes where objects might be.

    Args:
        image: [H, W, 3] uint8 RGB, or another array that proposals.selective.colour.to_rgb accepts.
        config: Settings of the sources.
        multibox: The loaded MultiBox network, needed where `config.multibox.weights` is set:
            `detector.multibox.load_source(config.multibox)`.
        content: Bytes of the image's file, by which a proposal store among the own sources finds the image.
        threads: Threads of selective search; the result does not depend on their number.

    Returns:
        Boxes inside the image, in its own pixels. Selective search may find none in a tiny image.

    Raises:
        ValueError: `image` is not accepted by to_rgb; MultiBox weights are set and `multibox` is missing; an own source
            does not exist or does not return boxes and scores.
        ImportError: the config's method needs a package that is not installed.
    """
    found = find(image, config, multibox=multibox, content=content, threads=threads)
    return merge_sources(found, config)


def find(
    image: NDArray[Any],
    config: ProposalConfig,
    *,
    multibox: Source | None = None,
    content: bytes | None = None,
    threads: int = 1,
) -> dict[str, Found]:
    """Return the boxes that each source finds, keyed by its name, the most important source first; see `propose`."""
    rgb = to_rgb(image)
    found: dict[str, Found] = {}
    if config.multibox.weights:
        if multibox is None:
            raise ValueError(
                f"proposals.multibox.weights is {config.multibox.weights!r}, and only detector can load it: "
                "pass multibox=detector.multibox.load_source(config.multibox), or set the weights to ''"
            )
        found[MULTIBOX] = multibox(rgb)
    for name, where in config.own.items():
        found[name] = own_boxes(name, where, rgb, content)
    if config.selective_search:
        found[SELECTIVE_SEARCH] = at_width(rgb, config.width, lambda resized: _search(resized, config, threads))
    return found


def merge_sources(found: Mapping[str, Found], config: ProposalConfig) -> Proposals:
    """Join what `find` returns."""
    names = source_names(config)
    return merge([(names.index(name), *part) for name, part in found.items()], near=config.near, limit=config.max_boxes)


def merge(
    parts: Sequence[tuple[int, NDArray[np.float32], NDArray[np.float32]]], *, near: float, limit: int
) -> Proposals:
    """Join the boxes of several sources.

    Args:
        parts: (number of the source, boxes [N, 4] px, scores [N]) of each source, the most important one first.
        near: A box that overlaps a box of an earlier source by more than this IoU is dropped. Boxes of one source do
            not drop each other.
        limit: Most boxes; 0 keeps all.
    """
    boxes, scores, sources = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.uint8)
    for number, more, more_scores in parts:
        new = np.ones(len(more), np.bool_)
        if len(boxes) and len(more) and near < 1:
            new = iou(more, boxes).max(axis=1) <= near
        boxes = np.concatenate([boxes, more[new].astype(np.float32)])
        scores = np.concatenate([scores, more_scores[new].astype(np.float32)])
        sources = np.concatenate([sources, np.full(int(new.sum()), number, np.uint8)])
    end = limit or None
    return Proposals(boxes[:end], scores[:end], sources[:end])


def resized(rgb: NDArray[np.uint8], target: int) -> NDArray[np.uint8]:
    """Resize an image [H, W, 3] uint8 to the width at which selective search sees it, px; 0 does not resize."""
    height, width, _ = rgb.shape
    factor = min(target / width, TALLEST * target / height) if target else 1.0
    if factor == 1:
        return rgb
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, size, interpolation=method), dtype=np.uint8)


def at_width(rgb: NDArray[np.uint8], target: int, search: Source) -> Found:
    """Run a search on the image resized to a width, and map its boxes back to the image's own pixels.

    Args:
        rgb: [H, W, 3] uint8.
        target: Width of the resized image, px; 0 does not resize.
        search: The search: [H, W, 3] uint8 RGB -> boxes [N, 4] px and scores [N].
    """
    height, width, _ = rgb.shape
    rgb = resized(rgb, target)
    boxes, scores = search(rgb)
    back = scale(boxes, width / rgb.shape[1], height / rgb.shape[0])
    return clip(back, width, height).astype(np.float32), scores


def _search(rgb: NDArray[np.uint8], config: ProposalConfig, threads: int) -> Found:
    if config.method == "selectivesearch":
        boxes = package_boxes(rgb, config.superpixel_scale)
        order = np.arange(len(boxes), dtype=np.float64)  # the package's own
        return rank(boxes, order, min_width=config.min_width, max_boxes=config.max_boxes)
    return configured_search(rgb, config, threads)
