"""A training run from its config to its folder: read, train, record.

A config's `task` says what is learned: "regions" (finetune.py) or "images" (images.py). runs/<name>/ gets, beside what
record.py lists, best.safetensors, last.safetensors (classifiers; of regions also linear.safetensors) and state.pt (to
resume). With `members` several runs follow each other, each with a folder and a state of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from detector.config import ConfigError, load_config, peek
from detector.data.content import boxes_digest, images_digest, labelled_digest
from detector.data.dataset import open_dataset
from detector.data.ground_truth import Dataset, exhaustive_part, with_classes
from detector.data.labelled_images import LabelledImages, open_images
from detector.device import keep_freed_memory
from detector.experiments.extraction import dataset_proposals, with_proposals
from detector.invocation import command
from detector.training.counts import check_objects, smaller_than_batch, warn_of_counts
from detector.training.images import ImageTraining, ImageTrainingConfig, check_images, start_image_classifier
from detector.training.loop import Loop
from detector.training.optimisation import OptimisationConfig
from detector.training.ranks import Ranks, joined
from detector.training.readable import report_unread
from detector.training.record import Reports, begin, check_folder, owned
from detector.training.regions import (
    Examples,
    FineTuneConfig,
    FineTuning,
    ImageBatches,
    SharedTuning,
    WindowBatches,
    start_classifier,
)
from detector.training.regression import add_regression
from detector.training.windows import BACKGROUND, BatchSampler, FewImages, ImageSampler, collect_windows
from proposals.boxes import Boxes
from proposals.store import ProposalStore

RUNS = Path("runs")
SCHEMAS: dict[str, type[FineTuneConfig] | type[ImageTrainingConfig]] = {
    "regions": FineTuneConfig,
    "images": ImageTrainingConfig,
}


def train(config_name: str, overrides: Sequence[str], *, device: str = "auto", resume: bool = False) -> list[Path]:
    """Carry out the experiment of a config; returns the folders of its runs, one a member.

    Args:
        config_name: YAML file or preset of FineTuneConfig or ImageTrainingConfig.
        overrides: key=value texts.
        device: as detector.device names it.
        resume: go on where the runs of that name stopped; what has not begun, starts.

    Raises:
        UserError, OSError: a message for the user; TrainingError at the end where images could not be read.
        KeyboardInterrupt: stopped, and saved.
    """
    task = str(peek(config_name, overrides, "task") or "regions")
    if task not in SCHEMAS:
        raise ConfigError(f"{config_name}: task must be one of {', '.join(SCHEMAS)}, not {task!r}")
    runs = members(SCHEMAS[task], config_name, overrides)
    keep_freed_memory()
    unread = 0
    with joined(device) as ranks:
        folders = []
        for member in runs:
            folders.append(RUNS / member.name)
            with owned(folders[-1], leads=ranks.leads):
                if isinstance(member, ImageTrainingConfig):
                    unread += _train_images(member, folders[-1], ranks, resume)
                else:
                    unread += _train_regions(member, folders[-1], ranks, resume)
    if ranks.leads:
        weights = ",".join(f"{folder}/best.safetensors" for folder in folders)
        if task == "images":
            print(f"done: {command('classify')} image.jpg --models {weights.replace(',', ' ')}")
        else:
            moves = all(isinstance(member, FineTuneConfig) and member.regression_windows for member in runs)
            ending = "" if moves else " regression=false"
            print(f"done: {command('detect')} image.jpg models=[{weights}]{ending}")
    report_unread(unread)
    return folders


def members(
    schema: type[FineTuneConfig] | type[ImageTrainingConfig], config_name: str | Path, overrides: Sequence[str] = ()
) -> list[FineTuneConfig | ImageTrainingConfig]:
    """The runs of an ensemble: they differ in seed, and where the config's `variants` say so; one stays itself.

    Raises:
        ConfigError: as load_config; a wrong variant is refused whether or not a member takes it.
    """
    config = load_config(schema, config_name, overrides)
    try:
        variants = [load_config(schema, config_name, [*overrides, *variant]) for variant in config.variants]
    except ConfigError as error:
        raise ConfigError(f"{config_name}, variants: {str(error).removeprefix('overrides: ')}") from error
    runs: list[FineTuneConfig | ImageTrainingConfig] = []
    for number in range(config.members):
        name = config.name if config.members == 1 else f"{config.name}-{number + 1}"
        own = variants[number % len(variants)] if variants else config
        runs.append(replace(own, name=name, seed=config.seed + number, members=1, variants=[]))
    return runs


def _train_images(config: ImageTrainingConfig, folder: Path, ranks: Ranks, resume: bool) -> int:
    """Returns the number of images that could not be read."""
    resuming = check_folder(folder, config, resume=resume)
    train_set = open_images(config.train)
    val_set = check_images(train_set, open_images(config.val))
    if ranks.leads and not resuming:
        for line in (
            *(f"warning: {line}" for images in (train_set, val_set) for line in images.warnings),
            *(f"warning: {line}" for line in _counts_of_images(train_set, val_set)),
            *smaller_than_batch("train", len(train_set), config.batch, "images"),
        ):
            print(f"train_classifier: {line}", file=sys.stderr)
    classifier = start_image_classifier(config, train_set.classes)
    data = [
        labelled_digest(images, Path(part.root).expanduser())
        for images, part in ((train_set, config.train), (val_set, config.val))
    ]
    task = ImageTraining(config, classifier, train_set, val_set, ranks)
    loop = Loop(task, config, folder, ranks, data=" ".join(data))
    if ranks.leads and not resuming:
        print(f"{folder}: {len(train_set):,} images of {len(train_set.classes)} classes", file=sys.stderr)
    carry_on(loop, config, resuming)
    return task.unread


def _counts_of_images(train_set: LabelledImages, val_set: LabelledImages) -> list[str]:
    names = train_set.classes
    train, val = (np.bincount(images.labels, minlength=len(names)) for images in (train_set, val_set))
    return warn_of_counts(names, train.astype(np.int64), val.astype(np.int64), "image")


def _train_regions(config: FineTuneConfig, folder: Path, ranks: Ranks, resume: bool) -> int:
    """Returns the number of images that could not be read."""
    resuming = check_folder(folder, config, resume=resume)
    train_set = open_dataset(config.train)
    val_set = with_classes(open_dataset(config.val), train_set.classes, "train")
    for dataset in (train_set, val_set):
        exhaustive_part(dataset)  # refused before an hour of proposals
        for warning in dataset.warnings if ranks.leads else ():
            print(f"train_classifier: warning: {warning}", file=sys.stderr)
    torch.manual_seed(config.seed)
    classifier = start_classifier(config, train_set.classes)
    if config.train_from != "none":
        classifier.network.trunk_slice(config.train_from)  # a wrong name is refused before an hour of proposals
    for line in check_objects(train_set, val_set, max(config.images, 1)):
        if ranks.leads and not resuming:
            print(f"train_classifier: {line}", file=sys.stderr)

    data: list[str] = []
    unread: list[str] = []

    def batches(dataset: Dataset, seed: int, *, plain: bool = False) -> Examples:
        exhaustive = exhaustive_part(dataset)  # the others give no window but their boxes
        found = None
        if ranks.leads:
            found = dataset_proposals(exhaustive, config.proposals, Path(config.cache), max(1, config.workers)).folder
        store = ProposalStore(ranks.from_first(found))  # which the first has checked
        readable, lines = with_proposals(exhaustive, [store])
        unread.extend(lines)
        if lines:
            gone = {record.image_id for record in exhaustive.records} - set(readable.index_of)
            dataset = replace(
                dataset, records=tuple(record for record in dataset.records if record.image_id not in gone)
            )
        for line in lines if ranks.leads else ():
            print(f"train_classifier: warning: {line}; left out", file=sys.stderr)
        data.extend([images_digest(store.names, store.digests), boxes_digest(dataset)])
        none: Boxes = np.zeros((0, 4), np.float32)
        proposals = [store.named(record.image_id).boxes if record.exhaustive else none for record in dataset.records]
        windows = collect_windows(dataset, proposals, config.foreground_iou, config.background_iou)
        if ranks.leads:
            objects = int((windows.labels > BACKGROUND).sum())
            print(
                f"{dataset.name}: {len(dataset):,} images, {len(exhaustive):,} of them boxed throughout; "
                f"{objects:,} windows of objects, {len(windows) - objects:,} of background",
                file=sys.stderr,
            )
            for line in smaller_than_batch(dataset.name, objects, config.foreground, "windows of objects"):
                print(f"train_classifier: {line}", file=sys.stderr)
        balance, distortion = (0.0, 0.0) if plain else (config.class_balance, config.distortion)
        jitter = 1.0 if plain else config.scale_jitter
        if config.images:
            few = ImageSampler(
                windows,
                batch=config.batch,
                images=config.images,
                foreground=config.foreground,
                seed=seed,
                hard=config.hard_background,
                balance=balance,
            )
            if classifier.shared:
                return ImageBatches(dataset, few, config.regions, classifier.shared, distortion, jitter)
            return WindowBatches(dataset, FewImages(few), config.regions, classifier.convention.mean, distortion)
        sampler = BatchSampler(
            windows,
            batch=config.batch,
            foreground=config.foreground,
            seed=seed,
            hard=config.hard_background,
            balance=balance,
        )
        return WindowBatches(dataset, sampler, config.regions, classifier.convention.mean, distortion)

    kind = SharedTuning if classifier.shared else FineTuning
    task = kind(config, classifier, batches(train_set, config.seed), batches(val_set, 0, plain=True), ranks)
    loop = Loop(task, config, folder, ranks, data=" ".join(data))
    reports = None
    if not resuming:
        started = time.perf_counter()
        if ranks.leads:
            begin(folder, config, ranks.device)
            reports = Reports(folder)
            if config.linear_batches:
                task.fit_last_layer()
        ranks.wait()
        ranks.copy_from_first(task.network)
        row: dict[str, float] = {"epoch": 0.0} | loop.finish_epoch(("last", "linear"))
        if reports:
            reports.add(row | {"seconds": time.perf_counter() - started})
        loop.save_state()
    if config.train_from != "none":
        carry_on(loop, config, resuming, reports)
    if config.regression_windows and ranks.leads:
        overlaps = add_regression(task, folder / "best.safetensors")
        if overlaps:
            before, after = overlaps
            print(f"{folder}/best.safetensors: regression, IoU of val windows {before:.3f} -> {after:.3f}", flush=True)
    ranks.wait()
    return len(unread)


def carry_on(loop: Loop, config: OptimisationConfig, resuming: bool, reports: Reports | None = None) -> None:
    """Run a loop from its beginning or its saved state, writing its record.

    Args:
        loop: not run yet.
        config: the whole experiment, which its folder keeps.
        resuming: take up the folder's state.
        reports: of a run that has begun and made its folder.
    """
    folder, ranks = loop.folder, loop.ranks
    if resuming:
        loop.load_state()
        if ranks.leads:
            reports = Reports(folder, loop.finished_epochs)
            print(f"resumed {folder} at batch {loop.step} of {loop.steps}", file=sys.stderr)
    elif ranks.leads and not reports:
        begin(folder, config, ranks.device)
        reports = Reports(folder)
    ranks.wait()
    try:
        for row in loop.run():
            if reports:
                reports.add(row)
    finally:
        if reports:
            reports.close()
    ranks.wait()  # the others may read what the first has written
