"""Compute the proposals of many images in several processes and keep them in a store (proposals.store).

In: names and paths of images, settings.  Out: a finished store. A run that was stopped resumes at the next image.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detector.cores import usable_cores
from detector.data.content import digests_of
from detector.data.dataset import Sources
from detector.data.ground_truth import Dataset
from detector.data.image import ImageError, read_image
from detector.data.sources import by_source
from detector.progress import progress
from proposals.errors import UserError
from proposals.joined import JoinedStore
from proposals.merging import propose
from proposals.own import identity
from proposals.result import Proposals, Source, source_names
from proposals.settings import MultiBoxSettings, ProposalConfig
from proposals.store import ProposalStore, StoreError, digest, store_settings
from proposals.store_writer import StoreWriter

STORE_FILES = ("boxes.npy", "scores.npy", "sources.npy", "offsets.npy", "manifest.json")
JOURNAL_BEGINS = b'{"store": '


@dataclass(frozen=True)
class ExtractionConfig:
    """Settings of an extraction: images, proposals and the store.

    Attributes:
        data: The data set, or a list of them, each with a store of its own. None where the command names image files
            instead.
        proposals: Settings of the proposals.
        workers: Number of processes. 0 uses one per core that this process may use.
        cache: Folder of the stores of whole data sets, which training and evaluation search too.
        exhaustive: Whether to skip images that are not fully annotated; training uses proposals of no others.
    """

    data: Sources | None = None
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    workers: int = 0
    cache: str = ".cache/proposals"
    exhaustive: bool = False

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers must not be negative, but is {self.workers}")


def extract(
    images: Mapping[str, Path],
    config: ProposalConfig,
    folder: Path,
    *,
    workers: int = 0,
    shard: tuple[int, int] = (1, 1),
    label: str = "proposals",
) -> list[str]:
    """Fill the store in a folder with the proposals of images, or of one shard of them.

    Args:
        images: Paths, keyed by name.
        config: Settings of the proposals.
        folder: Folder of the store, new or unfinished.
        workers: Number of processes. 0 uses one per core that this process may use.
        shard: Number of the shard, from 1, and number of shards.
        label: Text in front of the progress bar.

    Returns:
        a line for each image that cannot be read. The finished store contains all others; extracting again adds those
        that have become readable.

    Raises:
        StoreError: the store has other settings, is damaged or in use, or a worker process died.
    """
    settings = settings_of(config)  # rejects weights and sources that do not exist
    # Rejects what is not installed before the store exists, and compiles once, not in every worker.
    propose(
        np.zeros((32, 32, 3), np.uint8), replace(config, selective_search=True, multibox=MultiBoxSettings(), own={})
    )
    check_folder(folder, shard)
    failures = []
    with StoreWriter(folder, settings, list(images), shard=shard, sources=source_names(config)) as writer:
        if writer.todo:
            done = len(writer.done)
            with progress(None, label, total=done + len(writer.todo), initial=done) as bar:
                for name, outcome in _outcomes({name: images[name] for name in writer.todo}, config, workers):
                    if isinstance(outcome, str):
                        failures.append(outcome)
                    else:
                        writer.append(name, *outcome)
                    bar.update()
        if writer.done or not failures:
            writer.finish()
    return failures


def check_folder(folder: Path, shard: tuple[int, int]) -> None:
    """Reject a folder with files of another program that have the names of a store's files.

    Raises:
        StoreError: there is such a file.
    """
    part = folder if shard[1] == 1 else folder / f"shard-{shard[0]}-of-{shard[1]}"
    journal = part / "journal.jsonl"
    foreign = [part / name for name in STORE_FILES if (part / name).exists()]
    if journal.is_file():
        beginning = journal.read_bytes()[: len(JOURNAL_BEGINS)]
        foreign = [] if JOURNAL_BEGINS.startswith(beginning) and (beginning or not foreign) else [journal]
    if foreign:
        raise StoreError(f"{part}: {foreign[0].name} is not part of a store of proposals; name another folder")


def dataset_proposals(
    dataset: Dataset, config: ProposalConfig, cache: Path, workers: int, *, digests: Sequence[str] | None = None
) -> ProposalStore:
    """Open the proposals of a data set in the cache folder, where shards may lie too, or compute them into it.

    A data set of several sources has a store for each, the same as when that source is used alone. Any number of
    processes may read a finished store at once; only one may write. Images that cannot be read are missing in the
    store.

    Args:
        dataset: The images.
        config: Settings of the proposals.
        cache: The cache folder.
        workers: Number of processes. 0 uses one per core that this process may use.
        digests: Result of digests_of for the images, if the caller has it.

    Raises:
        ImageError: no image can be read.
        StoreError: see extract; or a shard is missing.
    """
    digests = digests or digests_of([record.path for record in dataset.records])
    if dataset.sources:
        digest_of = {record.image_id: own for record, own in zip(dataset.records, digests, strict=True)}
        stores = {}
        for prefix, part in by_source(dataset).items():
            own = [digest_of[prefix + record.image_id] for record in part.records]
            stores[prefix] = dataset_proposals(part, config, cache, workers, digests=own)
        return JoinedStore(stores)
    images = {record.image_id: record.path for record in dataset.records}
    settings = settings_of(config)
    folder = cache_folder(images, config, cache, digests)
    sharded = any(folder.glob("shard-*-of-*")) and not (folder / "journal.jsonl").is_file()
    if sharded or (folder / "manifest.json").is_file():
        return ProposalStore(folder, settings)
    if not (folder / "journal.jsonl").exists():
        _take_over(dict(zip(images, digests, strict=True)), settings, source_names(config), folder)
    failures = extract(images, config, folder, workers=workers, label=f"proposals {dataset.name}")
    if len(failures) == len(images):
        more = f" (and {len(failures) - 1} more images)" if failures[1:] else ""
        raise ImageError(f"{failures[0]}{more}")
    return ProposalStore(folder, settings)


def _take_over(digests: Mapping[str, str], settings: Mapping[str, Any], sources: Sequence[str], folder: Path) -> None:
    """Start a store with the proposals of the same files and settings in other stores of the cache.

    Args:
        digests: Digests of the image files, keyed by name.
        settings: Settings of the store.
        sources: Sources of the store.
        folder: Folder of the store, which does not exist yet.
    """
    others: dict[str, ProposalStore] = {}
    for other in sorted(folder.parent.iterdir()) if folder.parent.is_dir() else ():
        with suppress(StoreError):  # other settings, unfinished, or no store
            store = ProposalStore(other, settings)
            others = {sha256: store for sha256 in digests.values() if sha256 in store} | others
    if others:
        with StoreWriter(folder, settings, list(digests), sources=sources) as writer:
            for name in writer.todo:
                if digests[name] in others:
                    writer.append(name, digests[name], *others[digests[name]].entry(digests[name]))


def with_proposals(dataset: Dataset, stores: Iterable[ProposalStore]) -> tuple[Dataset, list[str]]:
    """Return the images of a data set that all stores contain, and a line for each other, which could not be read."""
    everywhere = {record.image_id for record in dataset.records}.intersection(*(store.names for store in stores))
    kept, lines = [], []
    for record in dataset.records:
        if record.image_id in everywhere:
            kept.append(record)
            continue
        try:
            read_image(record.path)
            lines.append(f"{record.path}: could not be read when proposals were made")
        except ImageError as error:
            lines.append(str(error))
    return (replace(dataset, records=tuple(kept)) if lines else dataset), lines


def settings_of(config: ProposalConfig) -> dict[str, Any]:
    """Collect what the proposals of a config depend on, including the contents of the files that it names.

    Raises:
        CheckpointError: the MultiBox weights do not exist.
        ValueError: a source of own boxes does not exist.
    """
    files = {f"own.{name}": identity(name, where) for name, where in config.own.items()}
    if config.multibox.weights:
        from detector.multibox import weights_sha256  # needs torch

        files["multibox"] = weights_sha256(config.multibox.weights)
    return store_settings(config, files)


def cache_folder(
    images: Mapping[str, Path], config: ProposalConfig, cache: Path, digests: Sequence[str] | None = None
) -> Path:
    """Return the folder of the store of these images and settings.

    It is named by the names and contents of the images: a data set that was moved keeps its store, and another data set
    with the same names gets a store of its own.

    Args:
        images: Paths, keyed by name.
        config: Settings of the proposals.
        cache: The cache folder.
        digests: Result of digests_of for the images, if the caller has it.
    """
    digests = digests or digests_of(list(images.values()))
    key = json.dumps([settings_of(config), sorted(zip(images, digests, strict=True))], sort_keys=True)
    return cache / hashlib.sha256(key.encode()).hexdigest()[:16]


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Stop OpenCV's threads while processes are forked; a child would wait for its parent's threads forever."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


Outcome = tuple[str, tuple[int, int], Proposals, float]
"""Arguments of StoreWriter.append after the name."""


def _outcomes(images: Mapping[str, Path], config: ProposalConfig, workers: int) -> Iterator[tuple[str, Outcome | str]]:
    """Yield the name of each image, as it is finished, with its proposals or an error line.

    The workers are at most four images each ahead of the consumer.
    """
    count = workers or usable_cores()
    todo = iter(images.items())
    pending: dict[Future[Outcome | str], str] = {}
    with one_opencv_thread(), ProcessPoolExecutor(count, initializer=_start_worker) as executor:
        try:
            while True:
                for name, path in islice(todo, 4 * count - len(pending)):
                    pending[executor.submit(_propose_file, config, path)] = name
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    yield pending.pop(future), future.result()
        except BrokenProcessPool as error:
            raise StoreError(
                "a worker process died, perhaps for lack of memory; the same command resumes, workers=1 needs least"
            ) from error
        finally:
            executor.shutdown(cancel_futures=True)  # and waits: forked workers share the lock on the store


def _propose_file(config: ProposalConfig, path: Path) -> Outcome | str:
    try:
        content = path.read_bytes()
        image = read_image(path)
    except OSError as error:
        return f"{path}: {(error.strerror or str(error)).lower()}"
    except ImageError as error:
        return str(error)
    network = _multibox(config.multibox)
    started = time.perf_counter()
    try:
        found = propose(image, config, multibox=network, content=content)
    except UserError as error:  # from a source of own boxes
        return f"{path}: {error}"
    return digest(content), (image.shape[1], image.shape[0]), found, time.perf_counter() - started


@lru_cache(maxsize=1)
def _multibox(settings: MultiBoxSettings) -> Source | None:
    if not settings.weights:
        return None
    import torch

    from detector.device import choose_precision
    from detector.multibox import load_source

    torch.set_num_threads(1)  # the processes share the cores, and a fork has lost its parent's threads
    if settings.precision == "auto":  # a store's boxes do not depend on what was measured
        precision = str(choose_precision("auto", torch.device("cpu"))).removeprefix("torch.")
        settings = replace(settings, precision=precision)
    return load_source(settings)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which tells the workers
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End a worker whose parent was killed; it would wait for work forever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
