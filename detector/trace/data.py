"""An ImageTrace as what its page reads: plain values, and arrays as base64 of little-endian numbers.

In: an ImageTrace, and the objects of its image where they are known.  Out: a dict that json writes.
Nothing that the page computes from these is rounded here: scores, offsets and boxes keep their float32. Similarities of
merges are only shown, and have eight bits.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from detector.checkpoint import RegionClassifier
from detector.config import config_to_dict
from detector.data.image import Image
from detector.regions.maps import choose_level
from detector.regions.warp import context_windows, warp
from detector.trace.objects import Objects
from detector.trace.tracing import ImageTrace
from detector.trace.votes import Look
from proposals.result import Found
from proposals.selective.traced import Hierarchy, SearchTrace, Segmentation

TILES = 16
"""Regions that are shown as the network sees them."""
LONGEST = 1600  # px, longest side of the picture in the page; boxes keep the image's own pixels
QUALITY, TILE_QUALITY = 85, 80  # of JPEG


def page_data(found: ImageTrace, truth: Objects | None = None) -> dict[str, Any]:
    """Collect what the page shows.

    Args:
        found: The trace.
        truth: The objects of the image, where they are known.
    """
    detector, scored = found.detector, found.scored
    config = detector.config
    height, width, _ = scored.image.shape
    looks = [(look, False) for look in found.votes.looks] + [(look, True) for look in found.others]
    return {
        "name": found.name,
        "width": width,
        "height": height,
        "image": _jpeg(scored.image, QUALITY, LONGEST),
        "classes": list(detector.classes.names),
        "members": [_member(one, _model(config.models, index)) for index, one in enumerate(detector.members)],
        "settings": config_to_dict(config) | {"precision": detector.precision, "device": str(detector.device)},
        "minScores": None if scored.min_scores is None else [_finite(one) for one in scored.min_scores.tolist()],
        "seconds": scored.seconds,
        "extraSeconds": found.seconds,
        "counts": scored.counts,
        "sources": list(found.sources),
        "found": {name: len(boxes) for name, (boxes, _) in found.found.items()},
        "dropped": {name: packed(_dropped(part, found)) for name, part in found.found.items()},
        "proposals": {
            "boxes": packed(found.proposals.boxes),
            "scores": packed(found.proposals.scores),
            "sources": packed(found.proposals.sources),
        },
        "second": packed(found.votes.second.astype(np.float32)),
        "rejection": _rejection(found),
        "cascade": _cascade(found),
        "looks": [_look(look, is_other) for look, is_other in looks],
        "passedOver": packed(found.passed_over.astype(np.int32)),
        "detections": {
            "boxes": found.detections.boxes.tolist(),
            "scores": found.detections.scores.tolist(),
            "labels": found.detections.labels.tolist(),
        },
        "tiles": _tiles(found),
        "cuts": [_cuts(one, found) for one in detector.members],
        "search": None if found.search is None else _search(found, found.search),
        "truth": None
        if truth is None
        else {
            "boxes": truth.boxes.tolist(),
            "labels": truth.labels.tolist(),
            "names": list(truth.names),
            "ignored": truth.ignored.tolist(),
        },
    }


def packed(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as its type, shape and little-endian bytes in base64.

    Types are those that the page knows: f4, f8, i4, u1, u2.
    """
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    if kind not in ("f4", "f8", "i4", "u1", "u2"):
        raise ValueError(f"the page knows no arrays of {array.dtype}")
    data = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).tobytes()
    return {"type": kind, "shape": list(array.shape), "data": base64.b64encode(data).decode()}


def unpacked(content: dict[str, Any]) -> NDArray[Any]:
    """Return the array that `packed` packed."""
    data = base64.b64decode(content["data"])
    return np.frombuffer(data, np.dtype(f"<{content['type']}")).reshape(content["shape"])


def _finite(value: float) -> float | None:
    """JSON has no infinity, which is the least score of a class that is not to be shown."""
    return value if np.isfinite(value) else None


# ---- members and looks


def _model(models: Sequence[str], index: int) -> str:
    return models[index] if index < len(models) else f"model {index + 1}"


def _member(classifier: RegionClassifier, name: str) -> dict[str, Any]:
    shared = classifier.shared
    return {
        "name": name,
        "kind": "maps" if shared else "warped",
        "size": classifier.regions.size,
        "context": classifier.regions.context,
        "pyramid": shared.pyramid if shared else None,
        "grid": shared.grid if shared else None,
    }


def _look(look: Look, is_other: bool) -> dict[str, Any]:
    offsets = look.scores.offsets
    return {
        "member": look.member,
        "mirrored": look.mirrored,
        "phase": look.phase,
        "other": is_other,
        "rows": packed(look.rows.astype(np.int32)),
        "probabilities": packed(look.scores.probabilities),
        "offsets": None if offsets is None else packed(offsets),
    }


def _rejection(found: ImageTrace) -> dict[str, Any] | None:
    if found.votes.objects is None:
        return None
    return {"objects": packed(found.votes.objects), "threshold": found.votes.threshold}


def _cascade(found: ImageTrace) -> dict[str, Any] | None:
    votes = found.votes
    if votes.scored is None:
        return None
    return {"scored": packed(votes.scored.astype(np.int32)), "copies": packed(votes.copies.astype(np.int32))}


def _cuts(classifier: RegionClassifier, found: ImageTrace) -> dict[str, Any]:
    """Return what a member sees of each proposal: the window, and the level of the pyramid it is cut from."""
    windows = context_windows(found.proposals.boxes, classifier.regions)
    height, width, _ = found.scored.image.shape
    levels = None
    if classifier.shared:
        levels = packed(choose_level(windows, (height, width), classifier.shared).astype(np.uint8))
    return {"windows": packed(windows.astype(np.float32)), "levels": levels}


def _tiles(found: ImageTrace) -> list[dict[str, Any]]:
    """Warp the regions of the detections, then the best of those passed over, as the network sees them."""
    scored, count = found.scored, len(found.proposals.boxes)
    rows = _winners(found)
    best = np.argsort(-scored.scores.probabilities[:count, 1:].max(axis=1, initial=0), kind="stable")
    chosen = list(dict.fromkeys([*rows, *best.tolist(), *found.passed_over.tolist()]))
    half = chosen[: TILES * 3 // 4]
    half += [row for row in found.passed_over.tolist()[:: max(1, len(found.passed_over) // TILES)] if row not in half]
    tiles = []
    one = found.detector.members[-1]
    for row in half[:TILES]:
        box = found.proposals.boxes[[row]]
        (pixels,) = warp(scored.image, box, one.regions, one.convention.mean)
        tiles.append({"row": row, "image": _jpeg(pixels, TILE_QUALITY, LONGEST)})
    return tiles


def _winners(found: ImageTrace) -> list[int]:
    """Return the proposals from which the detections come."""
    count = len(found.proposals.boxes)
    rows = []
    for box, label in zip(found.detections.boxes, found.detections.labels.tolist(), strict=True):
        away = np.abs(found.scored.class_boxes[:count, label] - box).sum(axis=1)
        if len(away):
            rows.append(int(away.argmin()))
    return rows


# ---- proposals


def _dropped(part: Found, found: ImageTrace) -> NDArray[np.float32]:
    """Return the boxes of a source that merging left out."""
    kept = {tuple(box) for box in found.proposals.boxes.tolist()}
    boxes = [box for box in part[0].tolist() if tuple(box) not in kept]
    return np.array(boxes, np.float32).reshape(-1, 4)


def _search(found: ImageTrace, search: SearchTrace) -> dict[str, Any]:
    config = found.detector.config.proposals
    scales = {f"{scale:g}": [_segmentation(one) for one in some] for scale, some in found.superpixels.items()}
    own = f"{config.superpixel_scale:g}"
    if own not in scales:
        scales[own] = [_segmentation(one) for one in search.segmentations]
    width, height = found.search_size
    return {
        "width": width,
        "height": height,
        "mode": config.mode,
        "scale": own,
        "scales": scales,
        "hierarchies": [_hierarchy(one, search) for one in search.hierarchies],
        "boxes": len(search.ranked.boxes),
    }


def _segmentation(one: Segmentation) -> dict[str, Any]:
    """Return the superpixels with a picture whose red and green are the low and high byte of each pixel's number."""
    colours = np.zeros((*one.labels.shape, 3), np.uint8)
    colours[..., 0], colours[..., 1] = one.labels & 255, one.labels >> 8 & 255
    colours[..., 2] = one.labels >> 16
    return {
        "space": one.space,
        "k": one.k,
        "minSize": one.min_size,
        "boxes": packed(one.boxes.astype(np.uint16)),
        "map": _data_uri(colours, "PNG", optimize=True),
    }


def _hierarchy(one: Hierarchy, search: SearchTrace) -> dict[str, Any]:
    tree = one.tree
    superpixels = search.segmentations[one.segmentation].boxes
    return {
        "segmentation": one.segmentation,
        "similarities": one.similarities,
        "parts": packed(tree.parts),
        "values": packed(np.rint(tree.similarities.clip(0, 1) * 255).astype(np.uint8)),
        "ranks": packed(search.ranks(np.concatenate([superpixels, tree.boxes])).astype(np.int32)),
    }


# ---- pictures


def _jpeg(image: Image, quality: int, longest: int) -> str:
    picture = PIL.Image.fromarray(image)
    picture.thumbnail((longest, longest))
    return _data_uri(np.asarray(picture), "JPEG", quality=quality)


def _data_uri(pixels: NDArray[np.uint8], kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
