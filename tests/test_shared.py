"""Regions cut out of an image's maps: RoIAlign against torchvision's, where a cell looks, scoring, and its training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from narrow import CLASSES, CONVENTION, picture, shared_classifier
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.ops import roi_align as torchvision_roi_align
from training_runs import runner

from detector import Detector, DetectorConfig
from detector.checkpoint import RegionClassifier, load_checkpoint, save_checkpoint
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.network.googlenet import Convolution, GoogLeNet, GoogLeNetConfig, Heads
from detector.network.input import network_input
from detector.regions.maps import (
    FIRST_CENTRE,
    FIRST_REGION_LAYER,
    STRIDE,
    SharedConfig,
    SharedNetwork,
    choose_level,
    map_coordinates,
    map_side,
    resize_to_area,
    roi_align,
)
from detector.regions.warp import RegionConfig, context_windows
from detector.training.region_batches import ImageBatches
from detector.training.regions import FineTuneConfig
from detector.training.shared_regions import SharedTuning, _on_canvas
from detector.training.windows import IGNORED, ImageSampler, Windows, collect_windows

SHARED = SharedConfig(pyramid=[96, 192], region=64, grid=14)


def windows_of(count: int, seed: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    corner = generator.random((count, 2)) * (12, 9) - 2
    return np.concatenate([corner, corner + 0.2 + generator.random((count, 2)) * 9], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def classifier() -> RegionClassifier:
    return shared_classifier(SHARED)


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return picture()


BOXES = np.array([[0, 0, 30, 30], [10, 5, 60, 45], [60, 0, 120, 90], [0, 0, 120, 90], [100, 70, 120, 90]], np.float32)


# ---- RoIAlign


@pytest.mark.parametrize("grid", [1, 3, 7])
@pytest.mark.parametrize("channels", [1, 5, 64])
def test_align_equals_torchvision(grid: int, channels: int) -> None:
    features = torch.randn(1, channels, 8, 11, generator=torch.Generator().manual_seed(1))
    windows = windows_of(50)
    expected = torchvision_roi_align(features, [torch.from_numpy(windows) + 0.5], grid, 1.0, 1, True)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = roi_align(features.contiguous(memory_format=layout), windows, grid)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_align_of_a_ramp_is_the_ramp() -> None:
    """Bilinear samples of a linear map are exact: a cell is the map's value in its middle."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(11.0), indexing="ij")
    (found,) = roi_align(torch.stack([columns, rows])[None], np.array([[1, 2, 8, 5.5]], np.float32), 7)
    middle = (np.arange(7) + 0.5) / 7
    np.testing.assert_allclose(found[0], np.tile(1 + 7 * middle, (7, 1)), atol=1e-5)
    np.testing.assert_allclose(found[1], np.tile(2 + 3.5 * middle, (7, 1)).T, atol=1e-5)


def test_align_has_gradients_where_the_map_has() -> None:
    features = torch.randn(1, 4, 8, 11, requires_grad=True)
    found = roi_align(features, windows_of(5), 7)
    found.sum().backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    torch.testing.assert_close(found, roi_align(features.detach(), windows_of(5), 7), rtol=1e-4, atol=1e-4)


def test_no_windows() -> None:
    assert roi_align(torch.randn(1, 4, 3, 3), np.zeros((0, 4), np.float32), 7).shape == (0, 4, 7, 7)


def test_where_a_cell_looks(classifier: RegionClassifier) -> None:
    """The middle of the first cell and the step, from the layers themselves; Inception modules look around evenly."""
    middle, step = 0.5, 1.0
    for layer in classifier.network.trunk_slice(None, FIRST_REGION_LAYER):
        conv = layer.conv if isinstance(layer, Convolution) else layer
        if isinstance(conv, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, padding = (
                value if isinstance(value, int) else value[0] for value in (conv.kernel_size, conv.stride, conv.padding)
            )
            middle += ((kernel - 1) / 2 - padding) * step
            step *= stride
    assert (middle, step) == (FIRST_CENTRE, STRIDE)


def test_a_box_in_cells() -> None:
    """Twice as wide and three times as high, cell 0 at 14.5 px."""
    found = map_coordinates(np.array([[100.0, 50, 200, 250]]), (2.0, 3.0))
    np.testing.assert_allclose(found, [[185.5 / 16, 135.5 / 16, 385.5 / 16, 735.5 / 16]])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((375, 500), (388, 517)), ((500, 375), (517, 388)), ((100, 1000), (142, 1417)), ((1, 2000), (32, 20035))],
)
def test_how_an_image_is_shown(size: tuple[int, int], expected: tuple[int, int]) -> None:
    shown, (scale_x, scale_y) = resize_to_area(np.zeros((*size, 3), np.uint8), 448)
    assert shown.shape == (*expected, 3)
    assert scale_x == pytest.approx(expected[1] / size[1])
    assert scale_y == pytest.approx(expected[0] / size[0])


def test_a_region_is_cut_where_it_is_nearest_to_its_size() -> None:
    """On an image of 400 × 100 px, whose area is that of 200 × 200, a level of 100 px shows it at half its size."""
    config = SharedConfig(pyramid=[400, 100, 200], region=50)
    sides = np.array([1, 25, 35, 36, 50, 70, 71, 100, 400])
    square = np.concatenate([np.zeros((9, 2)), np.stack([sides, sides], axis=1)], axis=1)
    assert choose_level(square, (100, 400), config).tolist() == [0, 0, 0, 2, 2, 2, 1, 1, 1]
    long = square * [1, 1, 2, 0.5]
    assert choose_level(long, (100, 400), config).tolist() == [0, 0, 0, 2, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("values", [{"pyramid": []}, {"pyramid": [224, 32]}, {"region": 0}, {"grid": 0}])
def test_settings_that_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="shared"):
        SharedConfig(**values)


# ---- scoring


def slow_softmax(one: RegionClassifier, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    assert one.shared is not None
    shown = [resize_to_area(image, side) for side in one.shared.pyramid]
    rows = []
    with torch.no_grad():
        for box in context_windows(boxes, one.regions):
            x1, y1, x2, y2 = box.tolist()
            sides = [math.sqrt((x2 - x1) * (y2 - y1) * x * y) for _, (x, y) in shown]
            level = min(range(len(sides)), key=lambda level: max(sides[level] / 64, 64 / sides[level]))
            of_level, scale = shown[level]
            features = one.network.trunk_slice(None, FIRST_REGION_LAYER)(network_input(of_level[None], one.convention))
            corners = torch.tensor([[(value * scale[i % 2] - 14.5) / 16 + 0.5 for i, value in enumerate(box.tolist())]])
            cut = torchvision_roi_align(features, [corners.float()], one.shared.grid, 1.0, 1, True)
            rows.append(one.network.classify(one.network.trunk_slice(FIRST_REGION_LAYER)(cut)).softmax(dim=1))
    result: NDArray[np.float32] = torch.cat(rows).numpy()
    return result


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_scores_are_those_of_each_region_by_itself(
    classifier: RegionClassifier, image: NDArray[np.uint8], batch: int
) -> None:
    expected = slow_softmax(classifier, image, BOXES)
    found = Detector([classifier], DetectorConfig(batch=batch)).score(image, BOXES).scores.probabilities
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(expected - expected.mean(axis=0)).max() > 0.01  # regions differ, a hundred times the tolerance
    assert classifier.shared is not None
    windows = context_windows(BOXES, classifier.regions)
    assert len(set(choose_level(windows, image.shape[:2], classifier.shared).tolist())) == 2  # both levels are needed


@pytest.mark.parametrize(("count", "levels"), [(20, 2), (1, 1)])
def test_the_trunk_runs_once_a_level(
    classifier: RegionClassifier, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, count: int, levels: int
) -> None:
    """At most: not for a level that no box is cut from."""
    seen = []
    once = GoogLeNet.trunk_slice

    def counted(self: GoogLeNet, start: str | None = None, stop: str | None = None) -> Any:
        seen.append((start, stop))
        return once(self, start, stop)

    detector = Detector([classifier], DetectorConfig(batch=1))
    monkeypatch.setattr(GoogLeNet, "trunk_slice", counted)
    detector.score(image, np.tile(BOXES, (4, 1))[:count])
    assert seen.count((None, FIRST_REGION_LAYER)) == levels
    assert seen.count((FIRST_REGION_LAYER, None)) == math.ceil(count / 8)  # batches


def test_too_little_memory_halves_the_batch(
    classifier: RegionClassifier, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight times as many regions at a time as are warped, and half as many, for good, where these are too many."""
    boxes = np.tile(BOXES, (20, 1))
    expected = Detector([classifier], DetectorConfig(batch=1)).score(image, boxes).scores.probabilities
    asked = []
    heads = SharedNetwork.heads

    def crowded(self: SharedNetwork, features: Tensor) -> Heads:
        asked.append(len(features))
        if len(features) > 20:
            raise torch.OutOfMemoryError
        return heads(self, features)

    monkeypatch.setattr(SharedNetwork, "heads", crowded)
    detector = Detector([classifier], DetectorConfig(batch=8))
    np.testing.assert_allclose(detector.score(image, boxes).scores.probabilities, expected, atol=1e-4)
    assert asked == [64, 32, 16, 16, 16, 16, 16, 16, 4]
    asked.clear()
    detector.score(image, boxes)
    assert asked == [16, 16, 16, 16, 16, 16, 4]  # it has learned


def test_members_of_both_kinds_are_averaged(classifier: RegionClassifier, image: NDArray[np.uint8]) -> None:
    warping = replace(classifier, shared=None)
    config = DetectorConfig(backend="torch")
    each = [Detector([one], config).score(image, BOXES).scores.probabilities for one in (classifier, warping)]
    together = Detector([classifier, warping], config).score(image, BOXES).scores.probabilities
    np.testing.assert_allclose(together, np.mean(each, axis=0), atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 1e-3


def test_mirrored_too(classifier: RegionClassifier, image: NDArray[np.uint8]) -> None:
    width = image.shape[1]
    turned = np.stack([width - BOXES[:, 2], BOXES[:, 1], width - BOXES[:, 0], BOXES[:, 3]], axis=1)
    other = slow_softmax(classifier, np.ascontiguousarray(image[:, ::-1]), turned)
    expected = (slow_softmax(classifier, image, BOXES) + other) / 2
    found = Detector([classifier], DetectorConfig(mirror=True)).score(image, BOXES).scores.probabilities
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_kept_in_the_file(classifier: RegionClassifier, tmp_path: Path) -> None:
    for one in (classifier, replace(classifier, shared=None)):
        save_checkpoint(tmp_path / "x.safetensors", one)
        assert load_checkpoint(tmp_path / "x.safetensors").shared == one.shared


# ---- what is learned from


def table(*images: tuple[int, int, int]) -> Windows:
    """Images of so many foreground, near and far background windows."""
    rows = [
        (index, label, overlap)
        for index, counts in enumerate(images)
        for count, label, overlap in zip(counts, (1, 0, 0), (0.8, 0.3, 0.0), strict=True)
        for _ in range(count)
    ]
    image, labels, overlaps = (np.array(column) for column in zip(*rows, strict=True))
    boxes = np.tile(np.array([0, 0, 9, 9], np.float32), (len(rows), 1))
    return Windows(image.astype(np.int32), boxes, labels.astype(np.int16), overlaps.astype(np.float32))


def test_a_batch_is_of_few_images_with_objects() -> None:
    every = table((9, 9, 9), (0, 9, 9), (1, 1, 30), (40, 0, 0), (9, 0, 9))
    sampler = ImageSampler(every, batch=32, images=2, foreground=8, seed=3, hard=6)
    drawn = [sampler.draw(number) for number in range(40)]
    for windows, mirrored in drawn:
        assert len(windows) == len(mirrored) == 32
        assert np.array_equal(mirrored, np.repeat(mirrored[::16], 16))  # an image is mirrored or not
        for some in (windows[:16], windows[16:]):
            (index,) = set(some.image.tolist())
            foreground, near = int((some.labels > 0).sum()), int((some.overlaps == np.float32(0.3)).sum())
            assert foreground == {0: 4, 2: 1, 3: 4, 4: 4}[index]
            assert near >= {0: 3, 2: 1, 3: 0, 4: 0}[index]
            assert int((some.labels == IGNORED).sum()) == {0: 0, 2: 0, 3: 12, 4: 0}[index]
    order = [index for some, _ in drawn for index in some.image[::16].tolist()]
    assert all(sorted(order[start : start + 4]) == [0, 2, 3, 4] for start in range(0, 80, 4))  # each once a round
    assert 20 < sum(mirrored[::16].sum() for _, mirrored in drawn) < 60
    again, _ = sampler.draw(7)
    assert np.array_equal(again.image, drawn[7][0].image)
    with pytest.raises(ValueError, match=r"^4 images .*8$"):
        ImageSampler(every, batch=32, images=8, foreground=8, seed=3)


def test_images_contribute_the_mined_windows_that_they_have() -> None:
    """Of three images with a share of 3 each the first has five, the second two and the third none."""
    every = table((4, 9, 9), (4, 9, 9), (4, 9, 9))
    numbered = replace(every, boxes=every.boxes + np.arange(len(every), dtype=np.float32)[:, None])
    wrong = np.zeros(len(every), np.bool_)
    wrong[[17, 18, 19, 20, 21, 22 + 17, 22 + 21]] = True

    def draw(number: int) -> Windows:
        sampler = ImageSampler(numbered, batch=48, images=3, foreground=12, seed=3, hard=6, mined=9, wrong=wrong)
        return sampler.draw(number)[0]

    for number in range(10):
        windows = draw(number)
        for some in windows.boxes[:, 0].astype(int).reshape(3, 16):
            share = (3, 2, 0)[some[0] // 22]
            assert (numbered.labels[some[:4]] == 1).all()
            assert (numbered.overlaps[some[4:6]] == np.float32(0.3)).all()
            assert wrong[some[6 : 6 + share]].all()
            assert len(set(some[6 : 6 + share])) == share
            assert (numbered.labels[some[6 + share :]] == 0).all()
        assert np.array_equal(draw(number).boxes, windows.boxes)


def test_windows_follow_their_photograph(shapes: Path) -> None:
    """Mirrored or not, what a window of an object shows has the object's colour in its middle."""
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", list(CLASSES.names)))
    windows = collect_windows(dataset, [record.boxes[:0] for record in dataset.records])  # objects alone
    sampler = ImageSampler(windows, batch=4, images=2, foreground=4, seed=0)
    shared = SharedConfig([96, 192], 64, 14)
    batches = ImageBatches(dataset, sampler, RegionConfig(64, 4), shared, distortion=0.2, scale_jitter=1.3)
    levels = set()
    for number in range(8):
        *pyramid, extents, sizes, regions, some, labels = batches[number]
        assert ((regions >= 49) & (regions <= 83)).all()
        for level, scaled in enumerate(pyramid):
            assert scaled.shape[1:3] == tuple(extents[:, level].max(dim=0).values.tolist())
            for image, (height, width) in enumerate(extents[:, level].tolist()):
                if not height:
                    continue
                levels.add(level)
                assert round((height * width) ** 0.5) == shared.pyramid[level]
                rows, columns = sizes[image].tolist()
                for place, which in zip(some[image].tolist(), labels[image].tolist(), strict=True):
                    x, y = (place[0] + place[2]) / 2 * width / columns, (place[1] + place[3]) / 2 * height / rows
                    red, _, blue = scaled[image, int(y), int(x)].tolist()
                    assert (red > blue) == (which == 1)
    assert levels == {0, 1}


def test_images_of_one_size_pass_the_trunk_together(shapes: Path) -> None:
    """Together or one by one, the features are the same."""
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", list(CLASSES.names)))
    windows = collect_windows(dataset, [record.boxes[:0] for record in dataset.records])
    torch.manual_seed(0)
    network = GoogLeNet(GoogLeNetConfig(classes=3, width=0.25, initialisation="xavier")).eval()
    classifier = RegionClassifier(network, CONVENTION, RegionConfig(64, 4), CLASSES, shared=SHARED)
    data = DataConfig(DatasetKind.voc, "", "train")
    config = FineTuneConfig(train=data, val=data, init="", mode="shared", batch=8, images=2, foreground=4)
    sampler = ImageSampler(windows, batch=8, images=2, foreground=8, seed=0)
    batches = ImageBatches(dataset, sampler, RegionConfig(64, 4), SHARED)
    task = SharedTuning(config, classifier, batches, batches)
    batch = batches[0]
    with torch.inference_mode():
        together = task.features(network, batch)
        single = [task.features(network, tuple(column[i : i + 1] for column in batch)) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(single), rtol=1e-4, atol=1e-4)


def test_an_image_on_a_canvas_has_the_maps_of_its_own_size() -> None:
    """Away from its right and lower edge, which see 0 in the first layer alone."""
    torch.manual_seed(0)
    trunk = GoogLeNet(GoogLeNetConfig(width=0.25, initialisation="xavier")).eval().trunk_slice(None, FIRST_REGION_LAYER)
    x = torch.rand(2, 3, 480, 448)
    with torch.inference_mode():
        for rows, columns in ((120, 90), (97, 64), (33, 47), (32, 32)):
            assert trunk(x[:1, :, :rows, :columns]).shape[2:] == (map_side(rows), map_side(columns))
        canvas = _on_canvas(x, torch.tensor([[480, 448], [64, 80]]), 448)
        assert canvas.shape == (2, 3, 576, 576)
        assert canvas.is_contiguous(memory_format=torch.channels_last)
        assert not canvas[1, :, 64:].any()
        torch.testing.assert_close(trunk(canvas[:1])[:, :, :8, :8], trunk(x[:1])[:, :, :8, :8], rtol=1e-4, atol=1e-4)


def test_images_of_rare_classes_come_more_often() -> None:
    """27, 9 and 3 images of a class: the median is 9, and at balance 0.5 the rarest come sqrt(9 / 3) times a round."""
    labels = np.repeat([1, 2, 3], [27, 9, 3])
    rows = len(labels)
    image = np.repeat(np.arange(rows, dtype=np.int32), 2)
    both = np.stack([labels, np.zeros_like(labels)], axis=1).ravel().astype(np.int16)
    boxes = np.tile(np.array([0, 0, 9, 9], np.float32), (2 * rows, 1))
    windows = Windows(image, boxes, both, np.where(both > 0, 0.8, 0.0).astype(np.float32))
    sampler = ImageSampler(windows, batch=4, images=1, foreground=2, seed=0, balance=0.5)
    length = 41  # 27 + 9 + 3 * sqrt(3) = 41.2 images a round
    drawn = np.array([sampler.draw(number)[0].image[0] for number in range(50 * length)]).reshape(50, length)
    counts = np.stack([np.bincount(round_, minlength=rows) for round_ in drawn])
    assert (counts[:, :36] == 1).all()
    assert (counts[:, 36:] >= 1).all()
    assert np.ptp(counts[:, 36:].mean(axis=0)) < 0.5  # the extra ones are anybody's


def test_shared_settings_of_a_training_that_are_refused() -> None:
    data = DataConfig(DatasetKind.voc, "", "train")
    plain = FineTuneConfig(train=data, val=data, init="", images=4)
    for values, message in (
        ({"mode": "fast"}, "mode must be warp or shared"),
        ({"mode": "shared", "images": 3}, "images must divide batch"),
        ({"mode": "shared", "images": 0}, "mode=shared needs images"),
        ({"mode": "shared", "accumulate": 8}, "accumulate divide images"),
        ({"mode": "shared", "batch_norm_batches": 5}, "batch_norm_batches is for mode warp"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(plain, **values)  # type: ignore[arg-type]


# ---- training


Run = Callable[..., Path]


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trains a toy in a folder of its own, or goes on in one."""
    torch.manual_seed(0)
    network = GoogLeNet(GoogLeNetConfig(classes=3, width=0.25, norm="none", initialisation="xavier")).eval()
    start = tmp_path_factory.mktemp("start") / "narrow.safetensors"
    save_checkpoint(start, RegionClassifier(network, CONVENTION, RegionConfig(64, 4), CLASSES))
    data = {"kind": "voc", "root": str(shapes), "classes": list(CLASSES.names)}
    settings: dict[str, Any] = {
        "name": "toy", "precision": "float32", "mode": "shared", "images": 2,
        "shared": {"pyramid": [96, 192], "region": 64, "grid": 14},
        "init": str(start), "train": data | {"split": "train"}, "val": data | {"split": "val"},
        "proposals": {"width": 0, "min_width": 8}, "regions": {"size": 64, "context": 4}, "linear_batches": 2,
        "epochs": 2, "batches_per_epoch": 2, "batch": 8, "foreground": 4, "val_batches": 1, "workers": 0,
        "average_decay": 0.5, "cache": str(tmp_path_factory.mktemp("cache")),
    }  # fmt: skip

    return runner(settings, tmp_path_factory)


@pytest.mark.parametrize("train_from", ["conv1", "inception_4a", "inception_5a", "inception_5b"])
def test_the_layers_from_train_from_on_learn(run: Run, train_from: str) -> None:
    folder = run(train_from=train_from)
    before, after = (load_file(folder / f"{name}.safetensors") for name in ("linear", "last"))
    layers = [name for name, _ in load_checkpoint(folder / "last.safetensors").network.trunk.named_children()]
    for name, tensor in before.items():
        learns = name.startswith("fc") or layers.index(name.split(".")[1]) >= layers.index(train_from)
        assert torch.equal(tensor, after[name]) != learns, name
    assert load_checkpoint(folder / "best.safetensors").shared == SHARED


def test_interrupted_it_goes_on_to_the_same_bits(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from detector.training.loop import Loop

    whole = run()
    learn = Loop.learn

    def stop(self: Loop, batch: tuple[Tensor, ...]) -> float:
        value = learn(self, batch)
        self.stopping = self.step == 3
        return value

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "learn", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    resumed = run(tmp_path, resume=True)
    first, second = (load_file(folder / "last.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_it_learns_the_shapes(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(0)  # batch normalisation: without it so narrow a network learns by chance
    network = GoogLeNet(GoogLeNetConfig(classes=3, width=0.25, norm="batch", initialisation="xavier")).eval()
    start = tmp_path / "start.safetensors"
    save_checkpoint(start, RegionClassifier(network, CONVENTION, RegionConfig(64, 4), CLASSES, shared=SHARED))
    folder = run(
        init=str(start), linear_batches=0, epochs=4, batches_per_epoch=10, learning_rate=0.02, averaging="none"
    )
    losses = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if "train_loss" in line]
    first, *_, last = (yaml.safe_load(line)["train_loss"] for line in losses)
    assert last < 0.3 * first
