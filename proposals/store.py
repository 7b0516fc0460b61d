"""Proposals of many images on disk: the format of a store, and its reader.

A store is a folder, or one folder per shard within it, of
    boxes.npy    [N, 4] float32 px      scores.npy   [N] float32      sources.npy  [N] uint8, positions in `sources`
    offsets.npy  [M + 1] int64: the boxes of image i are rows offsets[i] to offsets[i + 1]
    manifest.json  settings, the hash of the list of images, and for each image its name, size, SHA-256 and seconds
    journal.jsonl  the same line by line as images are finished; a run that was killed resumes from it

An image is found by the content of its file, so that a store serves a data set that was moved or renamed; an image that
changed is rejected by name. Any program can write a store with proposals.store_writer.StoreWriter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proposals.errors import UserError
from proposals.result import Proposals
from proposals.settings import ProposalConfig

CODE = 3
"""Part of every store's settings; raised when the code proposes other boxes for the same image and settings."""

ARRAYS: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
    "boxes": (np.dtype("<f4"), (4,)),
    "scores": (np.dtype("<f4"), ()),
    "sources": (np.dtype("u1"), ()),
}
"""Type and shape of a row of each array, in the order of Proposals."""


class StoreError(UserError):
    """A store that cannot be used or resumed; the message names the folder and the next step."""


def store_settings(config: ProposalConfig, files: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return everything that the proposals of a config depend on.

    Args:
        config: Settings of the proposals.
        files: Hashes of the files that the settings name: MultiBox's weights, own sources.
    """
    return {"code": CODE, **config.RETIRED, **asdict(config), "files": dict(files or {})}


def digest(content: bytes) -> str:
    """Return the SHA-256 of an image file's bytes, by which a store identifies the image."""
    return hashlib.sha256(content).hexdigest()


class ProposalStore:
    """A finished store, read through the page cache.

    Args:
        folder: Folder of the store, or of its shards.
        settings: Settings the boxes must have been made with; None accepts any.

    Attributes:
        settings: Settings the boxes were made with.
        sources: Names of the sources, to which the numbers in Proposals.sources refer.
        names: Names of the images.
        digests: Digests of the images' files, in the same order.

    Raises:
        StoreError: there is no store, it is unfinished or damaged, a shard is absent, shards do not belong together, or
            it was made with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.names: list[str] = []
        self.digests: list[str] = []
        self._parts: list[dict[str, NDArray[Any]]] = []
        self._images: dict[str, tuple[int, int, tuple[int, int], float]] = {}  # digest: part, row, size, seconds
        parts = _parts(folder)
        first: dict[str, Any] = {}
        for number, part in enumerate(parts):
            manifest = _read_manifest(part)
            first = first or manifest
            if manifest["list_sha256"] != first["list_sha256"]:
                raise StoreError(f"{part} and {parts[0]} were made for different lists of images; extract them again")
            compare(part, {**manifest, "shard": []}, {**first, "shard": []})
            self._parts.append(_map_arrays(part, manifest))
            images = manifest["images"]
            self.names += images["name"]
            self.digests += images["sha256"]
            rows = zip(images["sha256"], images["size"], images["seconds"], strict=True)
            self._images |= {sha: (number, row, tuple(size), seconds) for row, (sha, size, seconds) in enumerate(rows)}
        self.settings: dict[str, Any] = first["settings"]
        self.sources: tuple[str, ...] = tuple(first["sources"])
        self._by_name = dict(zip(self.names, self.digests, strict=True))
        if settings is not None:
            compare(folder, first, {**first, "settings": json.loads(json.dumps(dict(settings)))})

    @property
    def folders(self) -> dict[str, Path]:
        """Folder of the store, keyed by the prefix of its images' names, which is empty (see JoinedStore)."""
        return {"": self.folder}

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, sha256: object) -> bool:
        """Whether the store has the proposals of a file with this digest."""
        return sha256 in self._images

    def entry(self, sha256: str) -> tuple[tuple[int, int], Proposals, float]:
        """Return width and height, proposals and seconds of a stored file by its digest, as StoreWriter takes them."""
        part, row, size, seconds = self._images[sha256]
        arrays = self._parts[part]
        start, end = arrays["offsets"][row : row + 2]
        return size, Proposals(*(arrays[key][start:end] for key in ARRAYS)), seconds

    def get(self, name: str, content: bytes) -> Proposals:
        """Return the proposals of an image.

        Args:
            name: Name of the image, for the message.
            content: Bytes of its file.

        Raises:
            StoreError: the store has no proposals for this content; the message says whether the image changed.
        """
        sha256 = digest(content)
        if sha256 not in self._images:
            changed = f"{name} is not the image it was when its proposals were stored"
            problem = changed if name in self._by_name else f"has no proposals of {name}"
            raise StoreError(f"{self.folder}: {problem}; delete the folder and extract them again")
        return self.entry(sha256)[1]

    def named(self, name: str) -> Proposals:
        """Return the proposals of the image of this name, even if its file has changed since.

        Raises:
            StoreError: the store has no image of this name.
        """
        if name not in self._by_name:
            raise StoreError(f"{self.folder}: has no proposals of {name}; delete the folder and extract them again")
        return self.entry(self._by_name[name])[1]

    def seconds(self, content: bytes) -> float:
        """Return the seconds that the proposals of a stored image took; 0 where they were not measured."""
        return self.entry(digest(content))[2]


def compare(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise StoreError, naming the first setting that differs, unless both manifests describe the same proposals."""
    for key in ("store", "shard", "sources"):
        if before.get(key) != now[key]:
            raise StoreError(f"{folder}: made with {key} = {before.get(key)!r}, now {now[key]!r}; name another folder")
    old, new = before.get("settings", {}), now["settings"]
    for key in {**old, **new}:
        was, wanted = (settings.get(key, "not set") for settings in (old, new))
        if was != wanted:
            raise StoreError(
                f"{folder}: made with {key} = {was!r}, now {wanted!r}; "
                "name another folder, or delete this one to start anew"
            )


def _parts(folder: Path) -> list[Path]:
    """Return the folders that hold a store's arrays."""
    shards = sorted(folder.glob("shard-*-of-*"))
    if (folder / "journal.jsonl").is_file() or not shards:
        return [folder]
    count = int(shards[0].name.rpartition("-")[2])
    wanted = [folder / f"shard-{number}-of-{count}" for number in range(1, count + 1)]
    if set(wanted) != set(shards):
        odd = min({*wanted} ^ {*shards})
        state = "belongs to another split" if odd in shards else "is absent"
        raise StoreError(f"{folder}: {odd.name} {state}; extract all shards of one count")
    return wanted


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        state = "unfinished; run the same extraction again to resume it" if folder.is_dir() else "no such folder"
        raise StoreError(f"{folder}: no finished proposals here ({state})")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if manifest["store"] != 1 or not {"settings", "sources", "images", "list_sha256", "boxes"} <= manifest.keys():
            raise KeyError("store")
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: no manifest of a proposal store; extract the proposals again") from error
    return manifest


def _map_arrays(folder: Path, manifest: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Map the arrays, and load the offsets; their lengths must be those of the manifest."""
    shapes = {key: (manifest["boxes"], *shape) for key, (_, shape) in ARRAYS.items()}
    shapes["offsets"] = (len(manifest["images"]["name"]) + 1,)
    arrays: dict[str, NDArray[Any]] = {}
    try:
        for key, shape in shapes.items():
            arrays[key] = np.load(folder / f"{key}.npy", mmap_mode="r" if key in ARRAYS else None)
            if arrays[key].shape != shape:
                raise ValueError(f"{key}.npy is {list(arrays[key].shape)}")
        edges = arrays["offsets"]
        if edges[0] != 0 or edges[-1] != manifest["boxes"] or (np.diff(edges) < 0).any():
            raise ValueError("offsets.npy does not divide the boxes")
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{folder}: damaged ({error}); delete the folder and extract the proposals again") from error
    return arrays
