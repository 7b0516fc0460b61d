"""A training from its configuration to its folder: read, train, record.

`task` says what is trained: regions, whole images or MultiBox. runs/<name>/ gets, beside the files that record.py
lists, best.safetensors, last.safetensors (of regions also linear.safetensors) and state.pt, from which the run can be
resumed. With `members` several runs follow each other, each with a folder and a state of its own. MultiBox's first
part, the head alone, is recorded in the sub-folder head/; without a second part its best weights are the run's.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detector.checkpoint import find_checkpoint
from detector.config import ConfigError, load_config, peek
from detector.data.content import boxes_digest, dataset_digest, images_digest, labelled_digest
from detector.data.counts import check_images, check_objects, warn_if_smaller
from detector.data.dataset import open_dataset, readable_part, resolved_sources
from detector.data.ground_truth import Dataset, exhaustive_part, with_classes
from detector.data.labelled_images import ImagesConfig, open_images, resolved_images
from detector.device import keep_freed_memory, training_precision
from detector.extraction import dataset_proposals, with_proposals
from detector.measuring import timed
from detector.model_files import RUNS, SHIPPED, file_sha256
from detector.multibox import MultiBoxModel, load_multibox, trunk_of
from detector.training.detection_ap import detection_ap
from detector.training.distillation import DistillationConfig
from detector.training.ending import finish_regions, next_commands
from detector.training.facts import of_boxes, of_images
from detector.training.images import ImageTraining, ImageTrainingConfig, start_image_classifier
from detector.training.jitter import Jitter
from detector.training.loop import Loop, carry_on
from detector.training.mining import MiningConfig, write_unlabelled
from detector.training.multibox import MultiBoxTrainingConfig, Views
from detector.training.multibox_features import cached_features, val_features
from detector.training.multibox_tasks import HeadTraining, MultiBoxTraining, start_multibox
from detector.training.optimisation import TrainingConfig
from detector.training.ranks import Ranks, joined
from detector.training.record import Reports, TrainingError, begin, check_folder, owned
from detector.training.refit import refit
from detector.training.region_batches import ImageBatches, RegionBatches, WindowBatches
from detector.training.regions import FineTuneConfig, FineTuning, sampler_of, start_classifier
from detector.training.regression import add_regression
from detector.training.shared_regions import SharedTuning
from detector.training.teacher import Teacher
from detector.training.tensorboard import check_tensorboard
from detector.training.windows import BACKGROUND, Windows, collect_windows
from proposals.boxes import Boxes
from proposals.files import write_whole
from proposals.joined import open_stores

SCHEMAS: dict[str, type[TrainingConfig]] = {
    "regions": FineTuneConfig,
    "images": ImageTrainingConfig,
    "multibox": MultiBoxTrainingConfig,
}


def train(
    config_name: str, overrides: Sequence[str], *, device: str = "auto", resume: bool = False, task: str = ""
) -> list[Path]:
    """Train the networks of a configuration; return the folders of the runs, one per member.

    Args:
        config_name: YAML file or preset of FineTuneConfig, ImageTrainingConfig or MultiBoxTrainingConfig.
        overrides: Settings as key=value texts.
        device: Name of the device, as in detector.device.
        resume: Continue the runs of that name; those that have not begun are started.
        task: "regions", "images" or "multibox"; empty takes that of the configuration, or else "regions".

    Raises:
        UserError, OSError: a message for the user; TrainingError at the end if images could not be read.
        KeyboardInterrupt: stopped, and saved.
    """
    task = task or str(peek(config_name, overrides, "task") or "regions")
    if task not in SCHEMAS:
        raise ConfigError(f"{config_name}: task must be one of {', '.join(SCHEMAS)}, not {task!r}")
    runs = _recognised(members(SCHEMAS[task], config_name, overrides))
    keep_freed_memory()
    folders, unread = [RUNS / member.name for member in runs], []
    with joined(device) as ranks:
        for member, folder in zip(runs, folders, strict=True):
            training_precision(member.precision, ranks.device)  # refused before anything is computed
            check_tensorboard(member.tensorboard)
            with owned(folder, leads=ranks.leads):
                if isinstance(member, FineTuneConfig):
                    unread += _train_regions(member, folder, ranks, resume)
                elif isinstance(member, ImageTrainingConfig):
                    unread += _train_images(member, folder, ranks, resume)
                elif isinstance(member, MultiBoxTrainingConfig):
                    unread += _train_multibox(member, folder, ranks, resume)
    if ranks.leads:
        for text, words in next_commands(runs, folders).items():
            print(f"{text}: {words}")
    if unread:
        raise TrainingError(
            f"trained to the end without {len(unread)} images that cannot be read (the first: {unread[0]}); "
            "fix or remove them"
        )
    return folders


def train_multibox(config_name: str, overrides: Sequence[str], *, device: str = "auto", resume: bool = False) -> Path:
    """Train MultiBox; return the folder of the run. Arguments and errors are those of `train`."""
    (folder,) = train(config_name, overrides, device=device, resume=resume, task="multibox")
    return folder


def members(
    schema: type[TrainingConfig], config_name: str | Path, overrides: Sequence[str] = ()
) -> list[TrainingConfig]:
    """List the runs of an ensemble, which differ in seed and in the settings of `variants`.

    Raises:
        ConfigError: as load_config; a wrong variant is refused whether or not a member takes it.
    """
    config = load_config(schema, config_name, overrides)
    try:
        variants = [load_config(schema, config_name, [*overrides, *variant]) for variant in config.variants]
    except ConfigError as error:
        raise ConfigError(f"{config_name}, variants: {str(error).removeprefix('overrides: ')}") from error
    runs = []
    for number in range(config.members):
        name = config.name if config.members == 1 else f"{config.name}-{number + 1}"
        own = variants[number % len(variants)] if variants else config
        runs.append(replace(own, name=name, seed=config.seed + number, members=1, variants=[]))
    return runs


def _recognised(runs: Sequence[TrainingConfig]) -> list[TrainingConfig]:
    """Replace kind=auto in the data of runs by what the folders hold; each data set is looked at once."""
    known: dict[str, Any] = {}

    def kinds(data: Any) -> Any:  # Sources or ImagesConfig
        if repr(data) not in known:
            known[repr(data)] = resolved_images(data) if isinstance(data, ImagesConfig) else resolved_sources(data)
        return known[repr(data)]

    return [
        replace(run, train=kinds(run.train), val=kinds(run.val))
        if isinstance(run, FineTuneConfig | ImageTrainingConfig | MultiBoxTrainingConfig)
        else run
        for run in runs
    ]


def _train_images(config: ImageTrainingConfig, folder: Path, ranks: Ranks, resume: bool) -> list[str]:
    """Train an image classifier; return the images that could not be read."""
    resuming = check_folder(folder, config, resume=resume)
    train_set, val_set = open_images(config.train), open_images(config.val)
    val_set, lines = check_images(train_set, val_set)
    if not resuming:
        ranks.say(*lines, *warn_if_smaller("train", len(train_set), config.batch, "images"))
        ranks.say(f"{folder}: {len(train_set):,} images of {len(train_set.classes)} classes")
    classifier = start_image_classifier(config, train_set.classes)
    data = [
        labelled_digest(images, Path(part.root).expanduser())
        for images, part in ((train_set, config.train), (val_set, config.val))
    ]
    task = ImageTraining(config, classifier, train_set, val_set, ranks)
    loop = Loop(task, config, folder, ranks, data=" ".join(data))
    reports = carry_on(loop, config, resuming=resuming, training=of_images(config, train_set, val_set))
    if reports:
        reports.finish(loop.best, commands=next_commands([config], [folder]))
    return task.unread


def _open_splits(config: FineTuneConfig | MultiBoxTrainingConfig) -> tuple[Dataset, Dataset]:
    """Open train and val; where one is a list, or classes are chosen, val gets the classes of train."""
    train_set = open_dataset(config.train, classes=config.classes, other_classes=config.other_classes)
    several = isinstance(config.train, tuple) or isinstance(config.val, tuple)
    classes = train_set.classes if several or config.classes else ()
    return train_set, open_dataset(config.val, classes=classes, other_classes=config.other_classes)


def _train_regions(config: FineTuneConfig, folder: Path, ranks: Ranks, resume: bool) -> list[str]:
    """Train a region classifier; return a line for each image that could not be read."""
    resuming = check_folder(folder, config, resume=resume)
    train_set, val_set = _open_splits(config)
    val_set = with_classes(val_set, train_set.classes, "train")
    for dataset in (train_set, val_set):
        exhaustive_part(dataset)  # refused before proposals are computed for an hour
        ranks.say(*(f"warning: {warning}" for warning in dataset.warnings))
    torch.manual_seed(config.seed)
    classifier = start_classifier(config, train_set.classes)
    if config.train_from != "none":
        classifier.network.trunk_slice(config.train_from)  # as above
    lines = check_objects(train_set, val_set, max(config.images, 1))
    if not resuming:
        ranks.say(*lines)
    teacher = Teacher(config.teacher, train_set.classes, Path(config.cache), ranks) if config.teacher else None

    plain = replace(config, seed=0, class_balance=0.0, distortion=0.0, scale_jitter=1.0, box_jitter=0.0)
    plain = replace(plain, context_jitter=0.0, teacher=None, mining=MiningConfig(), distillation=DistillationConfig())
    fill = classifier.convention.mean
    train_batches, digest, unread, _ = _region_batches(config, train_set, fill, ranks, teacher, folder)
    del teacher  # and its networks
    val_batches, val_digest, more, boxes = _region_batches(plain, val_set, fill, ranks)
    task = (SharedTuning if classifier.shared else FineTuning)(config, classifier, train_batches, val_batches, ranks)
    measure = detection_ap(config, classifier, val_batches.dataset, boxes, ranks)
    loop = Loop(task, config, folder, ranks, data=f"{digest} {val_digest}", occasional=measure)
    training, reports = of_boxes(config, train_set, val_set, config.epochs), None
    if not resuming:
        started = time.perf_counter()
        if ranks.leads:
            begin(folder, config, ranks.device)
            reports = Reports(folder, training=training, tensorboard=config.tensorboard)
            reports.write_page("running")
            if config.linear_batches:
                task.fit_last_layer()
        ranks.wait()
        ranks.copy_from_first(task.network)
        spent: dict[str, float] = {}
        with timed(spent, "measure_seconds"):
            row: dict[str, float] = {"epoch": 0.0} | loop.finish_epoch(("last", "linear"))
        if reports:
            reports.add(row | spent | {"seconds": time.perf_counter() - started}, loop.best)
        loop.save_state()
    if config.train_from != "none":
        reports = carry_on(loop, config, resuming=resuming, reports=reports, training=training)
    elif resuming:
        loop.load_state()
        reports = Reports(folder, training=training, tensorboard=config.tensorboard) if ranks.leads else None
    if config.regression_windows and ranks.leads:
        overlaps = add_regression(task, folder / "best.safetensors")
        if overlaps:
            before, after = overlaps
            ranks.say(f"{folder}/best.safetensors: box regression, IoU of val windows {before:.3f} -> {after:.3f}")
    ranks.wait()
    if config.refit_batches and not ranks.from_first(resuming and (folder / "refit.safetensors").is_file()):
        old, new = refit(task, folder)
        pairs = ", ".join(f"{name} {value:.4f} -> {new[name]:.4f}" for name, value in old.items())
        ranks.say(f"{folder}/refit.safetensors: last layer fitted anew, {pairs}")
    finish_regions(config, loop, measure, reports)
    return unread + more


def _region_batches(
    config: FineTuneConfig,
    dataset: Dataset,
    fill: tuple[float, float, float],
    ranks: Ranks,
    teacher: Teacher | None = None,
    folder: Path | None = None,
) -> tuple[RegionBatches, str, list[str], list[Boxes]]:
    """Compute the proposals of a data set, and the batches of its windows.

    Returns:
        the batches, a digest of images and boxes, a line for each image that could not be read, and the proposals of
        each image of the batches' data set.
    """
    exhaustive = exhaustive_part(dataset)  # other images contribute their boxes and need no proposals
    found = None
    if ranks.leads:
        found = dataset_proposals(exhaustive, config.proposals, Path(config.cache), max(1, config.workers)).folders
    store = open_stores(ranks.from_first(found))
    readable, unread = with_proposals(exhaustive, [store])
    if unread:
        gone = {record.image_id for record in exhaustive.records} - set(readable.index_of)
        dataset = replace(dataset, records=tuple(one for one in dataset.records if one.image_id not in gone))
    ranks.say(*(f"warning: {line}; left out" for line in unread))
    digest = f"{images_digest(store.names, store.digests)} {boxes_digest(dataset)}"
    none: Boxes = np.zeros((0, 4), np.float32)
    proposals = [store.named(record.image_id).boxes if record.exhaustive else none for record in dataset.records]
    windows = collect_windows(dataset, proposals, config.foreground_iou, config.background_iou)
    objects = int((windows.labels > BACKGROUND).sum())
    ranks.say(
        f"{dataset.name}: {len(dataset):,} images, {len(exhaustive):,} of them fully annotated; "
        f"{objects:,} foreground windows, {len(windows) - objects:,} of background",
        *warn_if_smaller(dataset.name, objects, config.foreground, "foreground windows"),
    )
    wrong = None
    if teacher and folder:
        windows, wrong, lesson_digest, more = _lesson(teacher, config, dataset, windows, ranks, folder)
        digest, unread = f"{digest} {lesson_digest}", unread + more
    sampler = sampler_of(config, windows, wrong)
    jitter = None
    if config.box_jitter or config.context_jitter:
        thresholds = config.foreground_iou, config.background_iou
        jitter = Jitter(config.box_jitter, config.context_jitter, *thresholds, config.seed)
    varied: dict[str, Any] = {"distortion": config.distortion, "jitter": jitter}
    parts = dataset, sampler, config.regions
    if config.mode == "shared":
        batches = ImageBatches(*parts, config.shared, scale_jitter=config.scale_jitter, **varied)
        return batches, digest, unread, proposals
    return WindowBatches(*parts, fill, **varied), digest, unread, proposals


def _lesson(
    teacher: Teacher, config: FineTuneConfig, dataset: Dataset, windows: Windows, ranks: Ranks, folder: Path
) -> tuple[Windows, NDArray[np.bool_], str, list[str]]:
    """Let the teacher score the windows, and report what that shows.

    Returns:
        the windows to draw from, which of them are hard negatives, a digest of the scores, and a line for each image
        that could not be read.
    """
    distilled = config.distillation.weight > 0
    lesson = teacher.lesson(dataset, windows, config.mining, config.background_iou, distilled=distilled)
    listing = folder / "unlabelled.csv"
    if ranks.leads:
        write_unlabelled(listing, dataset, lesson.unlabelled)
    ranks.say(
        *(f"warning: {line}; left out" for line in lesson.unread),
        f"teacher: {int(lesson.hard.sum()):,} hard negatives; {len(lesson.unlabelled):,} places look like unlabelled "
        f"objects, {lesson.left_out:,} windows there are left out: {listing}",
    )
    if config.mining.background and not lesson.hard.any():
        raise TrainingError(
            "no window is a hard negative: the teacher gives none that overlaps objects by less than "
            f"{config.mining.max_iou:g} a probability of objects above {config.mining.threshold:g}; lower "
            "mining.threshold, or set mining.background=0"
        )
    return lesson.windows, lesson.hard, lesson.digest, lesson.unread


def _train_multibox(config: MultiBoxTrainingConfig, folder: Path, ranks: Ranks, resume: bool) -> list[str]:
    """Train MultiBox; return a line for each image that could not be read."""
    resuming = check_folder(folder / "head", config, resume=resume)
    # A prior without an object is taught to be background, which needs fully annotated images.
    train_set, val_set = _open_splits(config)
    train_set = exhaustive_part(train_set)
    (train_set, unread), (val_set, more) = (readable_part(part, config.workers) for part in (train_set, val_set))
    unread = [*unread, *more]
    ranks.say(*(f"warning: {line}; left out" for line in unread))
    ranks.say(*(f"warning: {line}" for line in (*train_set.warnings, *val_set.warnings)))
    lines = check_objects(train_set, val_set)
    if not resuming:
        ranks.say(*lines, *warn_if_smaller("train", len(train_set), config.batch, "images"))
    source = find_checkpoint(config.init)
    classifier, convention = trunk_of(config.init)
    if config.train_from not in ("conv1", "none"):
        classifier.trunk_slice(config.train_from)  # refused before the head is trained
    network = start_multibox(config, classifier.trunk, classifier.fc.in_features, train_set)
    sha256 = file_sha256(source)
    shipped = (source.stem, sha256) if source.parent == SHIPPED else ("", "")  # its trunk is not stored again
    model = MultiBoxModel(network.eval().to(ranks.device), classifier.config, convention, config.size, *shipped)
    views = Views(train_set, config)
    sets = (train_set, val_set) if ranks.leads else ()  # read once for all processes
    data = ranks.from_first(" ".join([sha256, *map(dataset_digest, sets)]))
    features = cached_features(views, model, sha256, ranks)
    measured = val_features(val_set, model, ranks, training_precision(config.precision, ranks.device))
    of_head = replace(config, **vars(config.heads))
    head = HeadTraining(of_head, model, features, val_set, measured, ranks)
    first = Loop(head, of_head, folder / "head", ranks, data=data)
    training = of_boxes(config, train_set, val_set, of_head.epochs)
    reports = carry_on(first, config, resuming=resuming, training=replace(training, name=f"{config.name}: head"))
    if reports:
        reports.finish(first.best)

    if config.train_from != "none":
        resuming = check_folder(folder, config, resume=resume)
        best = load_multibox(folder / "head" / "best.safetensors")
        model.network.head.load_state_dict(best.network.head.state_dict())
        task = MultiBoxTraining(config, model, views, val_set, ranks)
        loop = Loop(task, config, folder, ranks, data=data)
        training = replace(training, epochs=config.epochs)
        reports = carry_on(loop, config, resuming=resuming, training=training)
        if reports:
            reports.finish(loop.best, commands=next_commands([config], [folder]))
    elif ranks.leads:
        with write_whole(folder / "best.safetensors") as path:
            shutil.copyfile(folder / "head" / "best.safetensors", path)
    return unread
