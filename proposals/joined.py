"""Stores of several lists of images, read as one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from proposals.result import Proposals
from proposals.store import ProposalStore, StoreError


class JoinedStore(ProposalStore):
    """Finished stores of the same settings, whose images are named by a prefix and their name in their store.

    Args:
        stores: The stores, at least one, keyed by the prefix of their images' names. No prefix begins another one.

    Raises:
        StoreError: two stores have other settings.
    """

    def __init__(self, stores: Mapping[str, ProposalStore]) -> None:
        self.stores = dict(stores)
        first, *others = stores.values()
        for other in others:
            if (other.settings, other.sources) != (first.settings, first.sources):
                raise StoreError(f"{other.folder} and {first.folder} were made with different settings")
        self.folder, self.settings, self.sources = first.folder, first.settings, first.sources
        self.names = [f"{prefix}{name}" for prefix, store in stores.items() for name in store.names]
        self.digests = [digest for store in stores.values() for digest in store.digests]

    @property
    def folders(self) -> dict[str, Path]:
        """Folder of each store, keyed by the prefix of its images' names."""
        return {prefix: store.folder for prefix, store in self.stores.items()}

    def __contains__(self, sha256: object) -> bool:
        """Whether a store has the proposals of a file with this digest."""
        return any(sha256 in store for store in self.stores.values())

    def entry(self, sha256: str) -> tuple[tuple[int, int], Proposals, float]:
        """Return width and height, proposals and seconds of a stored file by its digest."""
        return next(store for store in self.stores.values() if sha256 in store).entry(sha256)

    def get(self, name: str, content: bytes) -> Proposals:
        """Return the proposals of an image, as ProposalStore.get does."""
        store, own = self._store_of(name)
        return store.get(own, content)

    def named(self, name: str) -> Proposals:
        """Return the proposals of the image of this name, as ProposalStore.named does."""
        store, own = self._store_of(name)
        return store.named(own)

    def _store_of(self, name: str) -> tuple[ProposalStore, str]:
        """Return the store of an image and its name there."""
        for prefix, store in self.stores.items():
            if name.startswith(prefix):
                return store, name.removeprefix(prefix)
        raise StoreError(f"no store of proposals has images like {name}; there are {', '.join(self.stores)}...")


def open_stores(folders: Mapping[str, Path]) -> ProposalStore:
    """Open the stores whose `folders` these are.

    Raises:
        StoreError: as ProposalStore, or JoinedStore.
    """
    stores = {prefix: ProposalStore(folder) for prefix, folder in folders.items()}
    return stores[""] if [*stores] == [""] else JoinedStore(stores)
