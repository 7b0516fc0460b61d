"""Detect in one image and keep all that was done on the way: image -> ImageTrace.

The detections are those of `detector(image)`. Two things are computed beside them, and timed apart: the search is
repeated with its merges, and every member scores the best regions that were passed over, so that a reader can ask what
another threshold would have found.

N regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.data.image import ImageSource, read_image
from detector.detections import Detections
from detector.measuring import timed
from detector.pipeline import Detector, ScoredImage
from detector.trace.votes import Look, Votes
from proposals.merging import merge_sources, resized
from proposals.result import Found, Proposals, source_names
from proposals.selective.traced import SearchTrace, Segmentation, segmentations, trace_search

PASSED_OVER = 300
"""Regions that were passed over and that every member scores all the same, the best ones."""
SCALES = (1.0, 2.0)
"""Sizes of superpixels that are shown side by side: R-CNN's, and the paper's "2×" (§8)."""


@dataclass(frozen=True, eq=False)
class ImageTrace:
    """One image on its way through a detector.

    Attributes:
        name: Name of the image.
        detector: The detector.
        scored: The image, its regions and their scores, as the detector made them.
        detections: What it shows.
        found: Boxes of each source before they were merged, keyed by its name.
        proposals: The N proposals, with their sources.
        sources: Names that the proposals' sources are positions in.
        votes: What each member made of the regions.
        passed_over: [n] positions of the best regions that not all members scored.
        others: Each member's look at these.
        search: Selective search, at the size at which it saw the image; None where it took no part.
        search_size: Width and height of that size, px.
        superpixels: Segmentations at each of SCALES, keyed by the scale; empty without selective search.
        seconds: Time of what was computed for the trace alone, by name.
    """

    name: str
    detector: Detector
    scored: ScoredImage
    detections: Detections
    found: dict[str, Found]
    proposals: Proposals
    sources: tuple[str, ...]
    votes: Votes
    passed_over: NDArray[np.int64]
    others: tuple[Look, ...]
    search: SearchTrace | None
    search_size: tuple[int, int]
    superpixels: dict[float, tuple[Segmentation, ...]]
    seconds: dict[str, float]


def trace(detector: Detector, image: ImageSource, name: str = "") -> ImageTrace:
    """Detect in an image and keep what each stage did.

    Args:
        detector: The detector.
        image: A path, bytes, a PIL image or an array.
        name: Name of the image; by default that of its file.

    Raises:
        ImageError: The file cannot be read; the message names it.
        ValueError: The array is no image.
    """
    pixels = read_image(image)
    name = name or (Path(image).name if isinstance(image, str | Path) else "image")
    seconds: dict[str, float] = {}
    config = detector.config.proposals
    with timed(seconds, "proposals"):
        found = detector.find(pixels, image)
        proposals = merge_sources(found, config)
    votes = Votes(detector.members, len(proposals.boxes))
    scored = detector.score(pixels, proposals.boxes, recorder=votes)
    scored.seconds["proposals"] = seconds.pop("proposals")
    detections = scored.detections()

    passed_over = _passed_over(votes, len(proposals.boxes))
    looks: tuple[Look, ...] = ()
    if len(passed_over):
        others = Votes(detector.members, len(passed_over))
        with timed(seconds, "regions passed over"):
            detector.score_by_all(pixels, proposals.boxes[passed_over], recorder=others)
        looks = tuple(replace(look, rows=passed_over) for look in others.looks)

    search, small = None, resized(pixels, config.width)
    superpixels: dict[float, tuple[Segmentation, ...]] = {}
    if config.selective_search and config.method == "native":
        with timed(seconds, "selective search again"):
            search = trace_search(small, config)
            superpixels = {scale: segmentations(small, config.mode, scale) for scale in SCALES}
    return ImageTrace(
        name=name,
        detector=detector,
        scored=scored,
        detections=detections,
        found=found,
        proposals=proposals,
        sources=source_names(config),
        votes=votes,
        passed_over=passed_over,
        others=looks,
        search=search,
        search_size=(small.shape[1], small.shape[0]),
        superpixels=superpixels,
        seconds=seconds,
    )


def _passed_over(votes: Votes, count: int) -> NDArray[np.int64]:
    """Choose the regions that are scored all the same: near-copies first, then the best of each stage by its own score.

    Where a cascade and a rejection layer both pass regions over, each has half of the places, and what the one leaves
    free the other takes.
    """
    unscored = np.setdiff1d(np.arange(count), _by_all(votes, count))
    if len(unscored) <= PASSED_OVER:
        return unscored
    first = votes.looks[0]
    objects = np.full(count, -1.0)
    objects[first.rows] = 1 - first.scores.probabilities[:, 0]
    copies = np.intersect1d(votes.copies, unscored)
    seen = np.setdiff1d(np.intersect1d(first.rows, unscored), copies)
    rejected = np.setdiff1d(unscored, first.rows)
    by_layer = votes.objects if votes.objects is not None else objects
    best = [seen[np.argsort(-objects[seen], kind="stable")], rejected[np.argsort(-by_layer[rejected], kind="stable")]]
    places = max(PASSED_OVER - len(copies), 0)
    half = max(places // 2, places - len(best[1]))
    chosen = [copies[:PASSED_OVER], best[0][:half]]
    chosen.append(best[1][: PASSED_OVER - sum(map(len, chosen))])
    return np.sort(np.concatenate(chosen))


def _by_all(votes: Votes, count: int) -> Sequence[int] | NDArray[np.int64]:
    """Return the positions of the regions that every member scored."""
    if votes.scored is not None:
        return votes.scored
    return votes.looks[0].rows if votes.looks else np.arange(count)
