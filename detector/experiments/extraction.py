"""Proposals of many images, computed by several processes and kept in a store (proposals.store).

In: names and paths of images, settings.  Out: a finished store. A killed run goes on where it was, image by image.
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
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from detector.data.content import digests_of
from detector.data.dataset import DataConfig
from detector.data.ground_truth import Dataset
from detector.data.image import ImageError, read_image
from proposals.errors import UserError
from proposals.merging import propose
from proposals.own import identity
from proposals.result import Proposals, Source, source_names
from proposals.settings import MultiBoxSettings, ProposalConfig
from proposals.store import ProposalStore, StoreError, StoreWriter, digest, store_settings

STORE_FILES = ("boxes.npy", "scores.npy", "sources.npy", "offsets.npy", "manifest.json")
JOURNAL_BEGINS = b'{"store": '


@dataclass(frozen=True)
class ExtractionConfig:
    """What to extract.

    Attributes:
        data: the data set; None where a command was given image files.
        proposals: how boxes are proposed.
        workers: processes; 0 is one a processor core.
        cache: folder of the stores of whole data sets, where training and evaluation look for them.
        exhaustive: only of images whose every object is boxed: of no others does training take proposals.
    """

    data: DataConfig | None = None
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
    """Fill the store in folder with the proposals of images, those of the shard if there are several.

    Args:
        images: path by name.
        config: how boxes are proposed.
        folder: of the store, new or unfinished.
        workers: processes; 0 is one a processor core.
        shard: number, from 1, and count.
        label: of the progress bar.

    Returns:
        a line for each image that cannot be read. The finished store has all others; extracting again adds those that
        can be read by then.

    Raises:
        StoreError: the store was made otherwise, is damaged or in use, or a worker process died.
    """
    settings = settings_of(config)  # refuses weights and sources that are not there
    # Refuses what is not installed before the store exists, and compiles once, not in every worker.
    propose(
        np.zeros((32, 32, 3), np.uint8), replace(config, selective_search=True, multibox=MultiBoxSettings(), own={})
    )
    _check_folder(folder, shard)
    failures = []
    with StoreWriter(folder, settings, list(images), shard=shard, sources=source_names(config)) as writer:
        if writer.todo:
            done = len(writer.done)
            bar = tqdm(total=done + len(writer.todo), initial=done, desc=label, unit="image", dynamic_ncols=True)
            with bar:
                for name, outcome in _outcomes({name: images[name] for name in writer.todo}, config, workers):
                    if isinstance(outcome, str):
                        failures.append(outcome)
                    else:
                        writer.append(name, *outcome)
                    bar.update()
        if writer.done or not failures:
            writer.finish()
    return failures


def _check_folder(folder: Path, shard: tuple[int, int]) -> None:
    """Refuse to write a store over files of another program.

    Raises:
        StoreError: the folder has files of a store's names that belong to none.
    """
    part = folder if shard[1] == 1 else folder / f"shard-{shard[0]}-of-{shard[1]}"
    journal = part / "journal.jsonl"
    foreign = [part / name for name in STORE_FILES if (part / name).exists()]
    if journal.is_file():
        beginning = journal.read_bytes()[: len(JOURNAL_BEGINS)]
        foreign = [] if JOURNAL_BEGINS.startswith(beginning) and (beginning or not foreign) else [journal]
    if foreign:
        raise StoreError(f"{part}: {foreign[0].name} there is no part of a store of proposals; name another folder")


def dataset_proposals(
    dataset: Dataset, config: ProposalConfig, cache: Path, workers: int, *, digests: Sequence[str] | None = None
) -> ProposalStore:
    """The proposals of a data set's images, from the cache folder, shards extracted there too, or computed into it.

    Any number of processes may read a finished store at once; one that is being filled is its writer's.
    Images that cannot be read are not in it; who reads them finds out why.

    Args:
        dataset: the images.
        config: how boxes are proposed.
        cache: the cache.
        workers: processes that propose; 0 is one a processor core.
        digests: what digests_of says of the images, where the caller knows it already.

    Raises:
        ImageError: no image can be read.
        StoreError: as extract; or not all shards are there.
    """
    images = {record.image_id: record.path for record in dataset.records}
    settings = settings_of(config)
    digests = digests or digests_of(list(images.values()))
    folder = _folder(list(images), digests, settings, cache)
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
    """Begin a store with what others beside it have of the same files and settings: one changed image costs itself.

    Args:
        digests: of the images' files, by name.
        settings: of the store.
        sources: of the store.
        folder: of the store, not made yet.
    """
    others = []
    for place in sorted(folder.parent.iterdir()) if folder.parent.is_dir() else ():
        try:
            others.append(ProposalStore(place, settings))
        except StoreError:  # of other settings, unfinished, or no store
            continue
    if not any(sha256 in other for other in others for sha256 in digests.values()):
        return
    with StoreWriter(folder, settings, list(digests), sources=sources) as writer:
        for name in writer.todo:
            for other in others:
                if digests[name] in other:
                    writer.append(name, digests[name], *other.entry(digests[name]))
                    break


def with_proposals(dataset: Dataset, stores: Iterable[ProposalStore]) -> tuple[Dataset, list[str]]:
    """The images of a data set that all its stores have, and a line for each other, which could not be read."""
    missing: set[str] = set()
    for store in stores:
        missing |= {record.image_id for record in dataset.records}.difference(store.names)
    lines = []
    for record in dataset.records:
        if record.image_id in missing:
            try:
                read_image(record.path)
                lines.append(f"{record.path}: could not be read when proposals were made")
            except ImageError as error:
                lines.append(str(error))
    kept = tuple(record for record in dataset.records if record.image_id not in missing)
    return (replace(dataset, records=kept) if missing else dataset), lines


def settings_of(config: ProposalConfig) -> dict[str, Any]:
    """What the proposals of a config depend on, the contents of the files it names included.

    Raises:
        CheckpointError: no such MultiBox weights.
        ValueError: no such source of one's own.
    """
    files = {f"own.{name}": identity(name, where) for name, where in config.own.items()}
    if config.multibox.weights:
        from detector.multibox import weights_sha256  # needs torch

        files["multibox"] = weights_sha256(config.multibox.weights)
    return store_settings(config, files)


def cache_folder(images: Mapping[str, Path], config: ProposalConfig, cache: Path) -> Path:
    """Where in the cache the store of these images and settings is.

    It goes by the names and the contents of the images: a data set that moved finds its store again, and another one of
    the same names gets a store of its own.

    Args:
        images: path by name.
        config: how boxes are proposed.
        cache: the cache.
    """
    return _folder(list(images), digests_of(list(images.values())), settings_of(config), cache)


def _folder(names: Sequence[str], digests: Sequence[str], settings: Mapping[str, Any], cache: Path) -> Path:
    key = json.dumps([settings, sorted(zip(names, digests, strict=True))], sort_keys=True)
    return cache / hashlib.sha256(key.encode()).hexdigest()[:16]


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Stop OpenCV's threads while processes are forked: a child would wait for its parent's threads forever."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


Outcome = tuple[str, tuple[int, int], Proposals, float]
"""What StoreWriter.append takes after the name."""


def _outcomes(images: Mapping[str, Path], config: ProposalConfig, workers: int) -> Iterator[tuple[str, Outcome | str]]:
    """(name, proposals or what is wrong) of each image as it is finished, a few images ahead of the consumer."""
    count = workers or _cores()
    pending: dict[Future[Outcome | str], str] = {}
    with one_opencv_thread(), ProcessPoolExecutor(count, initializer=_start_worker) as executor:
        try:
            for name, path in images.items():
                pending[executor.submit(_propose_file, config, path)] = name
                if len(pending) >= 4 * count:
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        yield pending.pop(future), future.result()
            while pending:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    yield pending.pop(future), future.result()
        except BrokenProcessPool as error:
            raise StoreError(
                "a worker process died, perhaps for want of memory; the same command goes on, workers=1 needs least"
            ) from error
        finally:
            executor.shutdown(cancel_futures=True)  # and waits: forked workers share the lock on the store


def _cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _propose_file(config: ProposalConfig, path: Path) -> Outcome | str:
    try:
        content = path.read_bytes()
        image = read_image(path)
    except OSError as error:
        return f"{path}: {(error.strerror or str(error)).lower()}"
    except ImageError as error:
        return str(error)
    network = _multibox(config)
    started = time.perf_counter()
    try:
        found = propose(image, config, multibox=network, content=content)
    except UserError as error:  # a source of the user's own
        return f"{path}: {error}"
    return digest(content), (image.shape[1], image.shape[0]), found, time.perf_counter() - started


@lru_cache(maxsize=1)
def _multibox_of(settings: MultiBoxSettings) -> Source:
    import torch

    from detector.multibox import load_source

    torch.set_num_threads(1)  # the processes share the cores, and a fork has lost its parent's threads
    return load_source(settings)


def _multibox(config: ProposalConfig) -> Source | None:
    return _multibox_of(config.multibox) if config.multibox.weights else None


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which tells the workers
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work forever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
