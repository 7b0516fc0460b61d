"""What a training costs on this machine, measured on a few of its own batches and images.

In: the config of a training, images with their proposals.  Out: Costs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from detector.data.ground_truth import Dataset, Record
from detector.data.labelled_images import LabelledImages
from detector.device import autocast, training_precision
from detector.drafts.budget import Costs
from detector.training.detection_ap import detection_ap
from detector.training.images import EVAL_PART, ImageTraining, ImageTrainingConfig, start_image_classifier
from detector.training.loop import Loop
from detector.training.ranks import Ranks
from detector.training.region_batches import ImageBatches
from detector.training.regions import FineTuneConfig, sampler_of, start_classifier
from detector.training.shared_regions import SharedTuning
from detector.training.windows import collect_windows
from proposals.boxes import Boxes

STEPS = 5
DETECTED = 4


def measure_regions(
    config: FineTuneConfig,
    dataset: Dataset,
    records: Sequence[Record],
    boxes: Sequence[Boxes],
    proposal: float,
    device: torch.device,
) -> Costs:
    """Measure a training of regions that are cut from maps.

    Args:
        config: The training.
        dataset: The data set to train on.
        records: Some of its images, with objects; at least as many as a batch takes.
        boxes: [N, 4] px, the proposals of each of them.
        proposal: Seconds for the proposals of an image.
        device: Where it will train.

    Raises:
        CheckpointError: there are no such pretrained weights.
        TrainingError: the images have too few windows of objects.
    """
    part = replace(dataset, records=tuple(records))
    ranks = Ranks(device=device)
    classifier = start_classifier(config, dataset.classes)
    windows = collect_windows(part, boxes, config.foreground_iou, config.background_iou)
    sampler = sampler_of(config, windows)
    batches = ImageBatches(
        part, sampler, config.regions, config.shared, scale_jitter=config.scale_jitter, distortion=config.distortion
    )
    task = SharedTuning(config, classifier, batches, batches, ranks)
    precision = training_precision(config.precision, device)
    with torch.inference_mode(), autocast(device, precision):
        linear = list(_times(task.features(task.network.eval(), batch) for batch in task.batches(0, 3)))
    loop = Loop(task, config, Path())
    steps = list(_times(loop.learn(batch) for batch in task.batches(0, STEPS)))
    each = replace(config, ap_every=1, ap_images=0)
    seconds = 0.0
    for count in (1, DETECTED):  # the first one compiles
        some = replace(part, records=part.records[:count])
        measure = detection_ap(each, classifier, some, boxes[:count], ranks)
        assert measure is not None
        started = time.perf_counter()
        measure.measure(task.network.eval())
        seconds = (time.perf_counter() - started) / len(some)
    return Costs(proposal, median(steps[1:]), median(linear[1:]), seconds)


def measure_images(
    config: ImageTrainingConfig, train: LabelledImages, val: LabelledImages, device: torch.device
) -> tuple[float, float]:
    """Measure a training on whole images; returns the seconds of a batch and of a measurement on val."""
    few = replace(val, paths=val.paths[:EVAL_PART], labels=val.labels[:EVAL_PART])
    task = ImageTraining(config, start_image_classifier(config, train.classes), train, few, Ranks(device=device))
    loop = Loop(task, config, Path())
    steps = list(_times(loop.learn(batch) for batch in task.batches(0, STEPS)))
    started = time.perf_counter()
    with autocast(device, training_precision(config.precision, device)):
        task.measure(task.network.eval())
    return median(steps[1:]), (time.perf_counter() - started) * len(val) / len(few)


def _times(items: Iterable[object]) -> Iterator[float]:
    """Yield the seconds that each item takes to come."""
    started = time.perf_counter()
    for _ in items:
        yield time.perf_counter() - started
        started = time.perf_counter()
