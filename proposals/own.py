"""Your own sources of proposals: a function, or a store of boxes that any program made (proposals.store).

In: the name of a function or folder in a config, an image.  Out: boxes [N, 4] px and scores [N], best first.
A config names them as own: {mine: "package.module:function"} or own: {mine: runs/my_boxes}. The function takes an image
[H, W, 3] uint8 RGB and returns boxes and scores.
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
    """An own source that does not exist, or does not return boxes and scores; the message names its setting."""


def own_boxes(name: str, where: str, image: NDArray[np.uint8], content: bytes | None) -> Found:
    """Return the boxes of one own source, cut at the image's border; boxes without area are dropped.

    Args:
        name: Name of the source, for messages.
        where: The function or folder, as in the config.
        image: [H, W, 3] uint8 RGB.
        content: Bytes of the image's file, which a store needs.

    Raises:
        SourceError: there is no such function or store; the image of a store comes from no file; the source does not
            return boxes and scores.
        StoreError: the store has no proposals of the image.
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
    """Open a store or import a function, so that a wrong one is rejected once and not for each image.

    Raises:
        SourceError, StoreError: there is no such function or store.
    """
    if Path(where).is_dir():
        _store(where)
    else:
        _function(name, where)


def identity(name: str, where: str) -> str:
    """Hash what the boxes of a source depend on, as far as it is known: a store's boxes, or a module's file.

    Raises:
        SourceError: there is no such function or store.
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
        raise SourceError(f"proposals.own.{name}: {where} is not a function but a {type(source).__name__}")
    return source
