"""Teaching MultiBox: views whose boxes follow their pixels, cached features, whole runs, and that it learns."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from detector import Detector, DetectorConfig
from detector.checkpoint import ImageClassifier, load_checkpoint, save_checkpoint
from detector.config import ConfigError
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import ClassTable, DataError, Dataset, Record
from detector.experiments.coverage import CoverageConfig, measure_coverage
from detector.extraction import cache_folder, dataset_proposals
from detector.model_files import CheckpointError
from detector.multibox import MultiBoxModel, load_multibox, load_source, warp_view
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention, network_input
from detector.report.coverage_text import format_coverage
from detector.training import multibox_features
from detector.training.loop import Loop
from detector.training.multibox import MultiBoxTrainingConfig, Views, shares
from detector.training.multibox_features import cached_features, val_features
from detector.training.multibox_tasks import HeadTraining, MultiBoxTraining, start_multibox
from detector.training.ranks import Ranks
from detector.training.record import TrainingError, read_metrics
from detector.training.run import train_multibox
from detector.training.task import Batch
from proposals.boxes import iou
from proposals.locking import InUseError, Lock
from proposals.merging import propose
from proposals.multibox.head import MultiBoxConfig, pool
from proposals.recall import best_overlaps
from proposals.settings import MultiBoxSettings, ProposalConfig

SHAPES = ["square", "disc"]
Train = Callable[..., Path]


def make_config(shapes: Path, **changes: Any) -> MultiBoxTrainingConfig:
    data = [DataConfig(DatasetKind.voc, str(shapes), split, SHAPES) for split in ("train", "val")]
    plain = MultiBoxTrainingConfig(
        train=data[0], val=data[1], init="", head=MultiBoxConfig(6, 32), size=64, workers=0, precision="float32"
    )
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def trunk_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow classifier with random weights."""
    torch.manual_seed(0)
    network = GoogLeNet(GoogLeNetConfig(classes=2, width=0.25, norm="none", initialisation="xavier"))
    path = tmp_path_factory.mktemp("trunk") / "narrow.safetensors"
    save_checkpoint(path, ImageClassifier(network, InputConvention(std=(60.0, 60.0, 60.0)), 64, ("a", "b")))
    return path


def make_model(config: MultiBoxTrainingConfig, dataset: Dataset) -> MultiBoxModel:
    torch.manual_seed(0)
    network = GoogLeNet(GoogLeNetConfig(classes=2, width=0.25, norm="none", initialisation="xavier"))
    multibox = start_multibox(config, network.trunk, network.fc.in_features, dataset)
    return MultiBoxModel(multibox.eval(), network.config, InputConvention(std=(60.0, 60.0, 60.0)), config.size)


def dataset_of(folder: Path, boxes: list[list[tuple[float, ...]]], size: tuple[int, int] = (96, 80)) -> Dataset:
    """Grey images with those boxes painted red."""
    records = []
    for number, row in enumerate(boxes):
        image = np.full((size[1], size[0], 3), 128, np.uint8)
        for x1, y1, x2, y2 in row:
            image[round(y1) : round(y2), round(x1) : round(x2)] = (250, 10, 10)
        path = folder / f"{number}.png"
        PIL.Image.fromarray(image).save(path)
        count = len(row)
        records.append(
            Record(
                str(number),
                path,
                *size,
                boxes=np.array(row, np.float64).reshape(-1, 4),
                labels=np.zeros(count, np.int64),
                difficult=np.zeros(count, np.bool_),
                crowd=np.zeros(count, np.bool_),
                areas=np.ones(count),
            )
        )
    return Dataset("toy", ClassTable(("red",), (None,), (1,)), tuple(records))


# ---- views


def test_boxes_follow_their_pixels(shapes: Path, tmp_path: Path) -> None:
    """Of one red box: wherever crop and mirror put it, the box is where the red is."""
    dataset = dataset_of(tmp_path, [[(20, 30, 50, 60)]])
    views = Views(dataset, make_config(shapes, distortion=0.0, whole=0.3, visible=0.01))
    seen, mirrored = 0, 0
    for position in range(60):
        square, boxes, count = views[position]
        image = square.numpy().astype(int)
        assert image.shape == (64, 64, 3)
        red = (image[..., 0] - image[..., 1]) > 120
        if not count:
            assert red.mean() < 0.02
            continue
        rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
        painted = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 64
        assert boxes[0].numpy() == pytest.approx(painted, abs=1.5 / 64)
        seen += 1
        mirrored += painted[[0, 2]].mean() > 0.5  # the box is left of the middle as long as the image is whole
    assert seen > 50
    assert 10 < mirrored < 50


def test_a_box_of_which_little_is_seen_leaves(shapes: Path, tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, [[(0, 0, 96, 80), (2, 2, 12, 12)]])
    views = Views(dataset, make_config(shapes, whole=0.0, visible=0.7, crop_area=(0.5, 0.6)))
    counts = [views[position][2] for position in range(40)]
    assert 0 in counts  # the large one shows at most 60 % of itself, the small one is often cut off
    assert 1 in counts
    assert max(counts) == 1


def test_views_depend_on_seed_and_position_alone(shapes: Path) -> None:
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", SHAPES))
    first, second = (Views(dataset, make_config(shapes)) for _ in range(2))
    second[7]
    for position in (3, 0, 11):
        for one, two in zip(first[position], second[position], strict=True):
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(two))
    other = Views(dataset, make_config(shapes, seed=1))
    assert not torch.equal(other[3][0], first[3][0])


def test_odd_numbers_and_sizes_of_objects(shapes: Path, tmp_path: Path) -> None:
    """No object, one, 300, boxes of a pixel, boxes over the edge by rounding."""
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 60, (300, 2))
    many = np.concatenate([corners, corners + generator.uniform(1, 20, (300, 2))], axis=1)
    rows = [[], [(10, 10, 30, 30)], [tuple(box) for box in many], [(5, 5, 6, 6)], [(90, 70, 96.0000001, 80.0000001)]]
    dataset = dataset_of(tmp_path, rows)  # type: ignore[arg-type]
    config = make_config(shapes, batch=5)
    model = make_model(config, dataset)
    task = MultiBoxTraining(config, model, Views(dataset, config), dataset)
    loop = Loop(task, config, tmp_path)
    for batch in task.batches(0, 4):
        assert np.isfinite(loop.learn(batch))
    assert Views(dataset, config).most == 300
    row = task.measure(model.network.eval())
    assert 0 <= row["val_recall_200"] <= 1
    assert row["val_missed"] == 1 - row["val_recall_200"]
    for found in model.propose([record.read() for record in dataset.records]):
        assert len(found[0]) <= 6


def test_difficult_and_crowd_boxes_are_not_learned(tmp_path: Path) -> None:
    (record,) = dataset_of(tmp_path, [[(0, 0, 48, 40), (10, 10, 30, 30), (5, 5, 9, 9)]]).records
    marked = replace(record, difficult=np.array([False, True, False]), crowd=np.array([False, False, True]))
    assert shares(marked).tolist() == [[0, 0, 0.5, 0.5]]


# ---- features and measures


def test_cached_features_are_the_trunks(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", SHAPES))
    config = make_config(shapes, passes=3, cache=str(tmp_path))
    model = make_model(config, dataset)
    views = Views(dataset, config)
    features = cached_features(views, model, "sha", Ranks())
    assert features.features.shape == (3 * len(dataset), 9 * 256)
    for position in range(2 * len(features.counts)):
        (found,), (boxes,), (count,) = features.rows(range(position, position + 1))
        image, expected_boxes, expected_count = views[features.row(position)]
        with torch.no_grad():
            expected = pool(model.network.trunk(network_input(image.numpy()[None], model.convention)))[0]
        torch.testing.assert_close(found.float(), expected, rtol=2e-3, atol=2e-3)
        assert torch.equal(boxes, expected_boxes)
        assert count == expected_count
    seen = [features.row(position) for position in range(len(features.counts))]
    assert sorted(seen) == list(range(len(features.counts)))  # each once a round
    with monkeypatch.context() as patched:
        patched.setattr(multibox_features, "pool", None)  # nothing is computed again
        again = cached_features(views, model, "sha", Ranks())
        assert torch.equal(again.features, features.features)
        assert torch.equal(again.counts, features.counts)
        other_head = Views(dataset, replace(config, head=MultiBoxConfig(4, 8)))
        cached_features(other_head, model, "sha", Ranks())
    cached_features(views, model, "other weights", Ranks())
    assert len(list(tmp_path.iterdir())) == 2


def test_interrupted_features_go_on_where_they_were(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", SHAPES))
    config = make_config(shapes, passes=5, cache=str(tmp_path / "a"))
    model = make_model(config, dataset)
    whole = cached_features(Views(dataset, config), model, "sha", Ranks())
    views = Views(dataset, replace(config, cache=str(tmp_path / "b")))
    calls = []

    def stopped(maps: torch.Tensor) -> torch.Tensor:
        calls.append(len(maps))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return pool(maps)

    monkeypatch.setattr(multibox_features, "pool", stopped)
    with pytest.raises(KeyboardInterrupt):
        cached_features(views, model, "sha", Ranks())
    resumed = cached_features(views, model, "sha", Ranks())
    assert calls == [8, 8, 8, 4]  # the first eight were not computed again
    assert torch.equal(resumed.features, whole.features)
    assert torch.equal(resumed.boxes, whole.boxes)
    assert torch.equal(resumed.counts, whole.counts)


def changed_record(record: Record, boxes: list[tuple[float, ...]]) -> Record:
    count = len(boxes)
    return replace(
        record,
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        labels=np.zeros(count, np.int64),
        difficult=np.zeros(count, np.bool_),
        crowd=np.zeros(count, np.bool_),
        areas=np.ones(count),
    )


CHANGES = {
    "more boxes": lambda records: (changed_record(records[0], [(1, 1, 9, 9), (5, 5, 40, 40)]), *records[1:]),
    "another box": lambda records: (*records[:2], changed_record(records[2], [(30, 30, 60, 60)])),
    "an image more": lambda records: (*records, replace(records[0], image_id="again")),
    "an image fewer": lambda records: records[:2],
    "another order": lambda records: records[::-1],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_features_follow_the_data(shapes: Path, tmp_path: Path, change: Callable[..., tuple[Record, ...]]) -> None:
    """The same settings, other boxes or images: each view has the boxes that it shows."""
    dataset = dataset_of(tmp_path, [[(0, 0, 20, 20)], [(10, 10, 30, 30)], [(40, 40, 90, 70)]])
    config = make_config(shapes, passes=2, head=MultiBoxConfig(1, 8), cache=str(tmp_path / "cache"))
    model = make_model(config, dataset)
    cached_features(Views(dataset, config), model, "sha", Ranks())
    views = Views(replace(dataset, records=change(dataset.records)), config)
    features = cached_features(views, model, "sha", Ranks())
    assert len(features.counts) == 2 * len(views.dataset)
    for position in range(len(features.counts)):
        _, boxes, count = views[position]
        assert torch.equal(features.boxes[position], boxes)
        assert features.counts[position] == count


def test_features_follow_the_pixels(shapes: Path, tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, [[(0, 0, 20, 20)], [(10, 10, 30, 30)]])
    config = make_config(shapes, passes=1, head=MultiBoxConfig(1, 8), cache=str(tmp_path / "cache"))
    model = make_model(config, dataset)
    before = cached_features(Views(dataset, config), model, "sha", Ranks()).features.clone()
    PIL.Image.fromarray(np.full((80, 96, 3), 5, np.uint8)).save(dataset.records[0].path)
    after = cached_features(Views(dataset, config), model, "sha", Ranks()).features
    assert not torch.equal(before, after)


def test_a_moved_data_set_finds_its_features(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = str(tmp_path / "cache")
    found = []
    for folder in ("a", "b"):
        shutil.copytree(shapes, tmp_path / folder)
        config = make_config(tmp_path / folder, passes=1, head=MultiBoxConfig(1, 8), cache=cache)
        dataset = open_dataset(config.train)
        found.append(cached_features(Views(dataset, config), make_model(config, dataset), "sha", Ranks()).features)
        monkeypatch.setattr(multibox_features, "pool", None)  # nothing is computed again
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["features", "boxes", "counts"])
@pytest.mark.parametrize("damage", ["gone", "cut", "other shape", "old form"])
def test_damaged_features_are_computed_again(shapes: Path, tmp_path: Path, name: str, damage: str) -> None:
    dataset = dataset_of(tmp_path, [[(0, 0, 20, 20)], [(10, 10, 30, 30)]])
    config = make_config(shapes, passes=1, head=MultiBoxConfig(1, 8), cache=str(tmp_path / "cache"))
    model = make_model(config, dataset)
    before = cached_features(Views(dataset, config), model, "sha", Ranks())
    expected = [part.clone() for part in (before.features, before.boxes, before.counts)]
    (path,) = (tmp_path / "cache").glob(f"*/{name}.npy")
    content = path.read_bytes()
    path.unlink()
    match damage:
        case "cut":
            path.write_bytes(content[:-1])
        case "other shape":
            np.save(path, np.ones(5))
        case "old form":  # numbers without a header
            path.write_bytes(content[128:] + bytes(128))
    again = cached_features(Views(dataset, config), model, "sha", Ranks())
    for part, wanted in zip((again.features, again.boxes, again.counts), expected, strict=True):
        assert torch.equal(part, wanted)


def test_two_runs_do_not_compute_the_same_features(shapes: Path, tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, [[(0, 0, 20, 20)]])
    config = make_config(shapes, passes=1, head=MultiBoxConfig(1, 8), cache=str(tmp_path / "cache"))
    model = make_model(config, dataset)
    cached_features(Views(dataset, config), model, "sha", Ranks())
    (folder,) = (tmp_path / "cache").iterdir()
    lock = Lock(folder / ".lock")
    with pytest.raises(InUseError):
        cached_features(Views(dataset, config), model, "sha", Ranks())
    lock.release()


def test_measure_is_the_recall_of_the_proposals(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.multibox.MIN_SIDE", 0)  # training measures boxes of any size
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "val", SHAPES))
    config = make_config(shapes, passes=1, cache=str(tmp_path))
    model = make_model(config, dataset)
    task = MultiBoxTraining(config, model, Views(dataset, config), dataset)
    row = task.measure(model.network)
    overlaps = []
    for record in dataset.records:
        ((boxes, _),) = model.propose([record.read()])
        overlaps.append(best_overlaps(record.boxes, boxes))
    everything = np.concatenate(overlaps)
    assert row["val_recall_10"] == pytest.approx((everything >= 0.5).mean())
    assert row["val_recall70_200"] == pytest.approx((everything >= 0.7).mean())
    features = cached_features(Views(dataset, config), model, "sha", Ranks())
    cached = HeadTraining(config, model, features, dataset, val_features(dataset, model, Ranks()))
    assert cached.measure(model.network.head) == pytest.approx(row, abs=0.2)  # float16 may tip a box over


def test_four_images_are_learned_by_heart(shapes: Path, tmp_path: Path) -> None:
    """Recall of all boxes is 1 at IoU 0.5, and the loss falls."""
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", SHAPES))
    config = make_config(shapes, whole=1.0, distortion=0.0, passes=8, cache=str(tmp_path), batch=8)
    config = replace(config, head=MultiBoxConfig(6, 256), learning_rate=0.003, schedule="constant", averaging="none")
    model = make_model(config, dataset)
    # A GoogLeNet of random weights makes nearly the same features of all images; colours where they are tell more.
    torch.manual_seed(0)
    colours = start_multibox(config, nn.Sequential(nn.AdaptiveAvgPool2d(7)), 3, dataset)
    model = replace(model, network=colours.eval())
    features = cached_features(Views(dataset, config), model, "sha", Ranks())
    task = HeadTraining(config, model, features, dataset, val_features(dataset, model, Ranks()))
    loop = Loop(task, config, tmp_path)
    losses = [loop.learn(batch) for batch in task.batches(0, 400)]
    assert np.mean(losses[-20:]) < 0.2 * np.mean(losses[:5])
    row = task.measure(model.network.head.eval())
    assert row["val_recall_200"] == 1
    assert row["val_recall70_10"] == 1


# ---- runs


@pytest.fixture(scope="module")
def toy_train(shapes: Path, trunk_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Two epochs of the head and two of everything from inception_5b on; further settings change some."""

    def run(folder: Path | None = None, *, resume: bool = False, **changes: Any) -> Path:
        folder = folder or tmp_path_factory.mktemp("training")
        data = {"kind": "voc", "root": str(shapes), "classes": SHAPES}
        settings: dict[str, Any] = {
            "name": "toy",
            "precision": "float32",  # the same on every processor
            "init": str(trunk_file),
            "train": data | {"split": "train"},
            "val": data | {"split": "val"},
            "head": {"priors": 6, "hidden": 16},
            "heads": {"epochs": 2, "batch": 4},
            "epochs": 2,
            "batch": 2,
            "passes": 2,
            "size": 64,
            "train_from": "inception_5b",
            "workers": 0,
        }
        (folder / "toy.yaml").write_text(yaml.safe_dump(settings | changes))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            return train_multibox("toy.yaml", [], device="cpu", resume=resume).resolve()

    return run


@pytest.fixture(scope="module")
def whole(toy_train: Train) -> Path:
    """The folder of an unbroken run."""
    return toy_train()


def test_a_run_leaves_its_record(whole: Path, trunk_file: Path) -> None:
    assert [row["epoch"] for row in read_metrics(whole / "head")] == [1, 2]
    assert [row["epoch"] for row in read_metrics(whole)] == [1, 2]
    columns = {"val_missed", "val_recall_10", "val_recall_50", "val_recall_100", "val_recall_200", "val_recall70_200"}
    assert columns < set(read_metrics(whole)[0])
    head = load_multibox(whole / "head" / "best.safetensors")  # whole, its trunk not being a shipped classifier's
    assert head.trunk_file == ""
    before, after = load_file(trunk_file), load_file(whole / "head" / "best.safetensors")
    trunk = [name for name in before if name.startswith("trunk.")]
    assert len(trunk) > 100
    assert all(torch.equal(before[name], after[name]) for name in trunk)  # the head alone learned
    both = load_multibox(whole / "best.safetensors")
    assert both.trunk_file == ""
    image = np.full((50, 60, 3), 100, np.uint8)
    ((boxes, _),) = both.propose([image])
    assert boxes.shape[1] == 4
    assert both.size == 64


@pytest.mark.parametrize("step", [0, 1, 3, 5])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    whole: Path, toy_train: Train, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the head's part, of two steps, and in the second, of four."""
    learn = Loop.learn
    taken = [0]

    def stopped(self: Loop, batch: Batch) -> float:
        if taken[0] == step:
            self.stopping = True
        taken[0] += 1
        return learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "learn", stopped)
        with pytest.raises(KeyboardInterrupt):
            toy_train(tmp_path)
    resumed = toy_train(tmp_path, resume=True)
    for part in ("head", "."):
        before, after = (torch.load(folder / part / "state.pt", weights_only=True) for folder in (whole, resumed))
        for name in ("network", "average"):
            assert all(torch.equal(after[name][key], tensor) for key, tensor in before[name].items())
        rows = [
            [{key: value for key, value in row.items() if "second" not in key} for row in read_metrics(folder / part)]
            for folder in (whole, resumed)
        ]
        assert rows[0] == rows[1]


def test_only_layers_from_train_from_on_learn(whole: Path, trunk_file: Path) -> None:
    before, after = load_file(trunk_file), load_file(whole / "last.safetensors")
    changed = {
        name.split(".")[1]
        for name in before
        if name.startswith("trunk.") and not torch.equal(before[name], after[name])
    }
    assert changed == {"inception_5b"}


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"match": "bipartite"}, ConfigError, "no key 'match'"),
        ({"crop_area": [0.9, 0.2]}, ConfigError, "crop_area must be two shares"),
        ({"whole": 2.0}, ConfigError, r"whole must be in \[0, 1\]"),
        ({"variants": [["seed=3"]]}, ConfigError, "members and variants are settings of classifiers"),
        ({"members": 3}, ConfigError, "members and variants are settings of classifiers"),
        ({"init": "nowhere"}, CheckpointError, "nowhere"),
        ({"head": {"priors": 500}}, ValueError, "different boxes cannot have 500 priors; set priors to at most"),
        ({"train_from": "inception_9"}, ValueError, "the trunk has no layer 'inception_9'; it has conv1"),
    ],
)
def test_refusals(toy_train: Train, changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        toy_train(**changes)


def test_a_data_set_without_boxes(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="toy: "):
        make_model(make_config(shapes), dataset_of(tmp_path, [[], []]))


def test_a_finished_run_is_not_overwritten(whole: Path, toy_train: Train) -> None:
    with pytest.raises(TrainingError, match="--resume auto"):
        toy_train(whole.parent.parent)


def test_views_and_proposals_warp_alike(shapes: Path) -> None:
    """What is trained on is what is shown at test: the whole image without distortion or mirror."""
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", SHAPES))
    views = Views(dataset, make_config(shapes, whole=1.0, distortion=0.0))
    for position in range(8):
        image = dataset.records[views.index(position)].read()
        expected = warp_view(image, (0, 0, image.shape[1], image.shape[0]), 64)
        found = views[position][0].numpy()
        assert np.array_equal(found, expected) or np.array_equal(found, expected[:, ::-1])


# ---- what the model proposes, in stores and comparisons


def test_stores_hold_both_sources_and_know_the_weights(whole: Path, shapes: Path, tmp_path: Path) -> None:
    """Computed by processes of their own, equal to what one process gives; other weights, another store."""
    data = DataConfig(DatasetKind.voc, str(shapes), "val", SHAPES)
    dataset = open_dataset(data)
    weights = str(whole / "best.safetensors")
    both = ProposalConfig(width=0, min_width=8, multibox=MultiBoxSettings(weights))
    store = dataset_proposals(dataset, both, tmp_path, 2)
    source = load_source(both.multibox)
    for record in dataset.records:
        expected = propose(record.read(), both, multibox=source)
        found = store.get(record.image_id, record.path.read_bytes())
        assert found.boxes == pytest.approx(expected.boxes, abs=1e-3)
        assert np.array_equal(found.sources, expected.sources)
        assert set(found.sources.tolist()) == {0, 1}
    assert store.sources == ("selective search", "multibox")
    other = replace(both, multibox=MultiBoxSettings(str(whole / "head" / "best.safetensors")))
    images = {record.image_id: record.path for record in dataset.records}
    assert cache_folder(images, both, tmp_path) != cache_folder(images, other, tmp_path)
    with pytest.raises(CheckpointError, match=r"nowhere; .* proposals\.multibox\.weights"):
        dataset_proposals(dataset, replace(both, multibox=MultiBoxSettings("nowhere")), tmp_path, 1)


def test_the_comparison_tells_what_each_source_alone_covers(whole: Path, shapes: Path, tmp_path: Path) -> None:
    data = DataConfig(DatasetKind.voc, str(shapes), "val", SHAPES)
    dataset = open_dataset(data)
    alone = ProposalConfig(width=0, min_width=30)
    both = replace(alone, multibox=MultiBoxSettings(str(whole / "best.safetensors")))
    config = CoverageConfig(data, {"alone": alone, "both": both}, cache=str(tmp_path))
    bench = measure_coverage(dataset, config)
    rows = bench.rows
    assert rows["alone"].gains == {}
    store = dataset_proposals(dataset, both, tmp_path, 1)
    only = {0: 0, 1: 0}
    total = 0
    for record in dataset.records:
        found = store.get(record.image_id, record.path.read_bytes())
        for box in record.boxes:
            total += 1
            covered = [bool((iou(box[None], found.boxes[found.sources == n]) >= 0.5).any()) for n in (0, 1)]
            for number in (0, 1):
                only[number] += covered[number] and not covered[1 - number]
    expected = {"selective search": only[0] / total, "multibox": only[1] / total}
    assert rows["both"].gains == pytest.approx(expected)
    lines = format_coverage(bench).splitlines()
    assert any(line.startswith("both: ") and "multibox alone" in line for line in lines)


def test_a_detector_uses_both(whole: Path, toy_checkpoint: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    settings = ProposalConfig(width=0, min_width=8, multibox=MultiBoxSettings(str(whole / "best.safetensors")))
    detector = Detector([load_checkpoint(toy_checkpoint)], DetectorConfig(proposals=settings))
    found = propose(image, settings, multibox=load_source(settings.multibox))
    assert set(found.sources.tolist()) == {0, 1}
    assert np.array_equal(detector.score(image).boxes, found.boxes)
