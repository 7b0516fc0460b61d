"""Varied windows: inside the image, with the label they were drawn with, the same whoever prepares them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from narrow import CLASSES, picture
from test_windows import make_record

from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import Dataset
from detector.regions.maps import SharedConfig
from detector.regions.warp import RegionConfig, context_windows, warp
from detector.training.jitter import Jitter, with_context
from detector.training.region_batches import ImageBatches, RegionBatches, WindowBatches
from detector.training.regions import FineTuneConfig
from detector.training.windows import IGNORED, BatchSampler, ImageSampler, collect_windows, label_windows
from proposals.boxes import iou

REGIONS = RegionConfig(64, 8)
FILL = (120.0, 120.0, 120.0)


# ---- sides that move


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("background_iou", [0.3, 0.5])
def test_a_moved_window_keeps_its_label_and_stays_inside(seed: int, background_iou: float) -> None:
    generator = np.random.default_rng(seed)
    record = make_record([(0, 0, 120, 100), (150, 150, 300, 280), (40, 200, 90, 300)], [3, 1, 2], difficult=(2,))
    nearby = record.boxes[generator.integers(0, 3, 200)] + generator.uniform(-30, 30, (200, 4))
    corner = generator.uniform(0, 250, (200, 2))
    boxes = np.concatenate([nearby, np.concatenate([corner, corner + generator.uniform(1, 50, (200, 2))], axis=1)])
    boxes = np.clip(boxes, 0, 300).astype(np.float32)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
    labels, _ = label_windows(boxes, record, 0.5, background_iou)
    used = labels != IGNORED
    boxes, labels = boxes[used], labels[used]
    jitter = Jitter(0.3, 0.0, 0.5, background_iou)
    moved = jitter.apply(boxes, labels, record, (300, 300), REGIONS, jitter.draw(seed, len(boxes)))

    assert (moved >= 0).all()
    assert (moved <= 300).all()
    assert (moved[:, 2:] > moved[:, :2]).all()
    away = np.abs(moved - boxes) / np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    assert away.max() <= 0.3 + 1e-5
    assert away.max() > 0.2
    for box, label in zip(moved, labels.tolist(), strict=True):
        overlaps = iou(box[None].astype(np.float64), record.boxes)[0]
        if label:
            assert overlaps.max() >= 0.5
            assert record.labels[overlaps.argmax()] + 1 == label
        else:
            assert overlaps.max() < background_iou
    assert (away > 0).any(axis=1).mean() > 0.9  # few have no place to go


def test_nothing_moves_where_no_label_would_stand() -> None:
    """A window of IoU 0.5 that may only shrink, and one that is an example of nothing."""
    record = make_record([(0, 0, 100, 100)], [0])
    boxes = np.array([[0, 0, 100, 50], [10, 10, 50, 50]], np.float32)
    chance = np.tile([0.9, 0.9, -0.9, -0.9, 0.0], (2, 1))
    labels = np.array([1, IGNORED], np.int16)
    assert np.array_equal(Jitter(0.2).apply(boxes, labels, record, (300, 300), REGIONS, chance), boxes)


def test_a_move_that_goes_too_far_is_halved() -> None:
    record = make_record([(0, 0, 100, 100)], [0])
    box, label = np.array([[0, 0, 100, 80]], np.float32), np.array([1], np.int16)
    chance = np.array([[0, 0, 0, -1, 0.0]])
    for amount, bottom in ((0.25, 60), (0.45, 62), (0.48, 60.8)):  # IoU 0.6; 0.44 -> 0.62; 0.416 -> 0.608
        (moved,) = Jitter(amount).apply(box, label, record, (300, 300), REGIONS, chance)
        assert moved.tolist() == pytest.approx([0, 0, 100, bottom])


# ---- context


@pytest.mark.parametrize("context", [0, 3, 8, 13, 24])
def test_a_scaled_box_shows_another_context(context: int) -> None:
    boxes = np.array([[10, 5, 60, 45], [60, 0, 120, 90], [100, 70, 120, 90]], np.float64)
    scaled = with_context(boxes, REGIONS, np.full(3, float(context)))
    other = replace(REGIONS, context=context)
    np.testing.assert_allclose(context_windows(scaled, REGIONS), context_windows(boxes, other), atol=1e-9)
    found = warp(picture(), scaled.astype(np.float32), REGIONS, FILL).astype(int)
    expected = warp(picture(), boxes.astype(np.float32), other, FILL).astype(int)
    assert np.abs(found - expected).mean() < 0.05  # float32 rounds what lies on an edge


def test_context_varies_by_the_setting() -> None:
    record = make_record([(0, 0, 100, 100)], [0])
    boxes = np.tile(np.array([100, 100, 148, 148], np.float32), (500, 1))
    jitter = Jitter(context=4.0)
    varied = jitter.apply(boxes, np.zeros(500, np.int16), record, (300, 300), REGIONS, jitter.draw(0, 500))
    shown = context_windows(varied, REGIONS)
    contexts = 32 * (1 - 48 / (shown[:, 2] - shown[:, 0]))  # S / (S - 2 c) times 48 px
    assert contexts.min() == pytest.approx(4, abs=0.1)
    assert contexts.max() == pytest.approx(12, abs=0.1)
    assert contexts.mean() == pytest.approx(8, abs=0.3)


# ---- batches


@pytest.fixture(scope="module")
def dataset(shapes: Path) -> Dataset:
    return open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", list(CLASSES.names)))


def batches_of(kind: str, dataset: Dataset, jitter: Jitter | None) -> RegionBatches:
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 50, (len(dataset), 40, 2))
    proposals = np.concatenate([corner, corner + generator.uniform(10, 30, corner.shape)], axis=2).astype(np.float32)
    windows = collect_windows(dataset, list(proposals))
    if kind == "shared":
        sampler = ImageSampler(windows, batch=16, images=4, foreground=8, seed=0)
        return ImageBatches(dataset, sampler, REGIONS, SharedConfig([96], 64, 14), jitter=jitter)
    return WindowBatches(dataset, BatchSampler(windows, batch=16, foreground=8, seed=0), REGIONS, FILL, jitter=jitter)


def test_a_batch_of_varied_windows(dataset: Dataset) -> None:
    jitter = Jitter(0.2, 4.0, seed=5)
    squares, labels = batches_of("warp", dataset, jitter)[3]
    windows, mirrored = batches_of("warp", dataset, None).sampler.draw(3)
    assert labels.tolist() == windows.labels.tolist()
    chance = jitter.draw(3, 16)
    differ = 0
    for row in range(16):
        record = dataset.records[windows.image[row]]
        some = slice(row, row + 1)
        box = jitter.apply(windows.boxes[some], windows.labels[some], record, (80, 96), REGIONS, chance[some])
        (region,) = warp(record.read(), box, REGIONS, FILL)
        assert np.array_equal(squares[row], region[:, ::-1] if mirrored[row] else region)
        differ += not np.array_equal(box, windows.boxes[some])
    assert differ > 12


def test_windows_of_a_mirrored_image_are_varied_before(dataset: Dataset) -> None:
    jitter = Jitter(0.2, 4.0, seed=5)
    *_, boxes, labels = batches_of("shared", dataset, jitter)[2]
    windows, mirrored = batches_of("shared", dataset, None).sampler.draw(2)
    assert labels.flatten().tolist() == windows.labels.tolist()
    assert 0 < mirrored.sum() < 16
    chance = jitter.draw(2, 16)
    for row, box in enumerate(boxes.reshape(16, 4).tolist()):
        record, some = dataset.records[windows.image[row]], slice(row, row + 1)
        args: Any = windows.boxes[some], windows.labels[some], record, (80, 96), REGIONS, chance[some]
        x1, y1, x2, y2 = jitter.apply(*args)[0].tolist()
        assert box == pytest.approx([96 - x2, y1, 96 - x1, y2] if mirrored[row] else [x1, y1, x2, y2], abs=1e-4)


@pytest.mark.parametrize("kind", ["warp", "shared"])
def test_every_process_varies_its_windows_as_one_alone_would(dataset: Dataset, kind: str) -> None:
    """The same batch again and in two shares; another batch and another seed differ."""
    jitter = Jitter(0.2, 4.0, seed=5)
    one = batches_of(kind, dataset, jitter)
    whole = one[1]
    assert all(torch.equal(a, b) for a, b in zip(whole, batches_of(kind, dataset, jitter)[1], strict=True))
    place = 0 if kind == "warp" else -2  # squares or boxes
    for rank in range(2):
        part = one.part(slice(rank, None, 2))[1]
        assert torch.equal(part[place], whole[place][rank::2])
    other = batches_of(kind, dataset, replace(jitter, seed=6))
    assert not torch.equal(other[1][place], whole[place])
    assert torch.equal(other[1][-1], whole[-1])
    assert not np.array_equal(jitter.draw(1, 16), jitter.draw(2, 16))


@pytest.mark.parametrize("kind", ["warp", "shared"])
def test_windows_in_order_are_not_varied(dataset: Dataset, kind: str) -> None:
    plain, varied = (batches_of(kind, dataset, jitter) for jitter in (None, Jitter(0.2, 4.0)))
    windows = plain.sampler.windows[:30]
    expected, found = plain.in_order(windows)[0], varied.in_order(windows)[0]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"box_jitter": 0.5}, r"box_jitter must be in \[0, 0.5\), not 0.5"),
        ({"context_jitter": 17.0}, r"context_jitter must be in \[0, 16\], not 17.0"),
        ({"regions": RegionConfig(64, 20), "context_jitter": 12.0}, r"must be below half of regions.size, 32 px"),
    ],
)
def test_settings_that_are_refused(values: dict[str, Any], message: str) -> None:
    data = DataConfig(DatasetKind.voc, "", "train")
    with pytest.raises(ValueError, match=message):
        FineTuneConfig(train=data, val=data, init="", **values)
