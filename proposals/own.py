"""Sources of one's own: a function, or a store of boxes that any program made (proposals.store).

A config names them: own: {mine: "package.module:function"}, or own: {mine: runs/my_boxes}. The function takes an image
[H, W, 3] uint8 RGB and gives boxes [N, 4] px and scores [N], best first.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proposals.boxes import clip
from proposals.errors import UserError
from proposals.result import Found, Source
from proposals.store import ProposalStore


class SourceError(UserError):
    """A source of one's own that is not there, or does not give boxes and scores; names its setting."""


def own_boxes(name: str, where: str, image: NDArray[np.uint8], content: bytes | None) -> Found:
    """The boxes of one source, cut at the image's border; those without area are left out.

    Args:
        name: of the source, for messages.
        where: as the config says.
        image: [H, W, 3] uint8 RGB.
        content: the bytes of its file, which a store needs.

    Raises:
        SourceError: there is no such function or store, a store meets an image that comes from no file or that it does
            not know, or what comes is not boxes and scores.
    """
    found: object
    if Path(where).is_dir():
        if content is None:
            raise SourceError(f"proposals.own.{name} is a store of image files, and this image comes from none")
        found = _store(where).get(f"an image for proposals.own.{name}", content)[:2]
    else:
        found = _function(name, where)(image)
    try:
        boxes, scores = (np.asarray(part, np.float32) for part in found)
    except (TypeError, ValueError) as error:
        raise SourceError(f"proposals.own.{name} ({where}) must give boxes [N, 4] and scores [N] ({error})") from error
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise SourceError(
            f"proposals.own.{name} ({where}) must give boxes [N, 4] and scores [N], "
            f"not {list(boxes.shape)} and {list(scores.shape)}"
        )
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise SourceError(f"proposals.own.{name} ({where}) gave boxes or scores that are not finite")
    inside = clip(boxes, image.shape[1], image.shape[0]).astype(np.float32)
    whole = np.min(inside[:, 2:] - inside[:, :2], axis=1) > 0
    return inside[whole], scores[whole]


def check_source(name: str, where: str) -> None:
    """Open a store or import a function, so that a wrong one is refused once and not for every image.

    Raises:
        SourceError, StoreError: there is no such function or store.
    """
    if Path(where).is_dir():
        _store(where)
    else:
        _function(name, where)


def identity(name: str, where: str) -> str:
    """What the boxes of a source depend on, as far as can be told: a hash of a store's boxes, or of a module's file.

    Raises:
        SourceError: as own_boxes.
    """
    total = hashlib.sha256()
    if Path(where).is_dir():
        store = ProposalStore(Path(where))
        total.update(json.dumps([store.settings, store.digests], sort_keys=True).encode())
        files = sorted(Path(where).rglob("*.npy"))
    else:
        modules = {where.partition(":")[0], getattr(_function(name, where), "__module__", "")}
        loaded = [sys.modules[module] for module in sorted(modules) if module in sys.modules]
        files = [Path(module.__file__) for module in loaded if module.__file__]
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


@lru_cache(maxsize=8)
def _store(folder: str) -> ProposalStore:
    return ProposalStore(Path(folder))


@lru_cache(maxsize=8)
def _function(name: str, where: str) -> Source:
    module, colon, function = where.partition(":")
    if not colon:
        raise SourceError(f"proposals.own.{name}: no folder {where}, and no function either (package.module:function)")
    try:
        source: Source = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise SourceError(f"proposals.own.{name}: {where} cannot be imported ({error})") from error
    if not callable(source):
        raise SourceError(f"proposals.own.{name}: {where} is no function but a {type(source).__name__}")
    return source
