"""A teacher's probabilities against its detector, kept and resumed; trainings that learn from one."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from narrow import CLASSES, CONVENTION, picture, shared_classifier
from safetensors.torch import load_file
from torch import Tensor
from training_runs import runner

from detector import Detector, DetectorConfig
from detector.checkpoint import RegionClassifier, load_checkpoint, save_checkpoint
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import ClassTable, Dataset
from detector.extraction import dataset_proposals
from detector.model_files import CheckpointError
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import network_input
from detector.regions.maps import SharedConfig
from detector.regions.warp import RegionConfig, warp
from detector.settings import CascadeConfig
from detector.training.distillation import DistillationConfig, distillation_loss
from detector.training.linear import fit_linear
from detector.training.loop import Loop
from detector.training.mining import MiningConfig
from detector.training.ranks import Ranks
from detector.training.record import TrainingError
from detector.training.region_batches import WindowBatches
from detector.training.regions import FineTuneConfig, FineTuning
from detector.training.teacher import Lesson, Teacher
from detector.training.windows import BatchSampler, Windows, collect_windows
from proposals.locking import Lock
from proposals.settings import ProposalConfig

SHARED = SharedConfig(pyramid=[96, 192], region=64, grid=14)
BOXES = ProposalConfig(width=0, min_width=8)
KEEP_ALL = MiningConfig(unlabelled=1.0)
REGIONS = RegionConfig(64, 4)


def classifier_of(classes: ClassTable, seed: int) -> RegionClassifier:
    """A classifier that warps its regions, with probabilities that differ."""
    torch.manual_seed(seed)
    config = GoogLeNetConfig(classes=1 + len(classes), width=0.25, norm="none", initialisation="xavier")
    network = GoogLeNet(config).eval()
    corner = np.random.default_rng(0).integers(0, 60, (40, 2))
    boxes = np.concatenate([corner, corner + 30], axis=1).astype(np.float32)
    regions = warp(picture(), boxes, REGIONS, CONVENTION.mean)
    with torch.no_grad():
        logits = network.classify(network.trunk(network_input(regions, CONVENTION, "cpu")))
        network.fc.weight.mul_(2 / logits.std(dim=0, keepdim=True).T)
        network.fc.bias.copy_(-2 * logits.mean(dim=0) / logits.std(dim=0))
    return RegionClassifier(network, CONVENTION, REGIONS, classes)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of weights."""
    folder = tmp_path_factory.mktemp("models")
    more = ClassTable(("disc", "cone", "square"), (None,) * 3, (1, 2, 3))
    all_ = {
        "shared": shared_classifier(SHARED),
        "warped": classifier_of(CLASSES, 1),
        "more": classifier_of(more, 2),
    }
    for name, classifier in all_.items():
        save_checkpoint(folder / f"{name}.safetensors", classifier)
    return {name: str(folder / f"{name}.safetensors") for name in all_}


@pytest.fixture(scope="module")
def dataset(shapes: Path) -> Dataset:
    return open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", list(CLASSES.names)))


@pytest.fixture(scope="module")
def windows(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Windows:
    store = dataset_proposals(dataset, BOXES, tmp_path_factory.mktemp("cache"), 1)
    return collect_windows(dataset, [store.named(record.image_id).boxes[:25] for record in dataset.records])


def detector_of(*models: str, **settings: Any) -> DetectorConfig:
    return DetectorConfig(models=list(models), precision="float32", **settings)


def lesson_of(
    config: DetectorConfig, dataset: Dataset, windows: Windows, cache: Path, mining: MiningConfig = KEEP_ALL
) -> Lesson:
    return Teacher(config, dataset.classes, cache, Ranks()).lesson(dataset, windows, mining, 0.5, distilled=True)


def scored(config: DetectorConfig, dataset: Dataset, windows: Windows) -> np.ndarray[Any, Any]:
    """Probabilities of each window, which the detector scores alone."""
    detector = Detector.load(config, device="cpu")
    rows = [
        detector.score(dataset.records[index].path, box[None]).scores.probabilities
        for index, box in zip(windows.image.tolist(), windows.boxes, strict=True)
    ]
    return np.concatenate(rows)


# ---- the probabilities


@pytest.mark.parametrize("name", ["shared", "warped"])
def test_probabilities_are_the_detectors(
    models: dict[str, str], dataset: Dataset, windows: Windows, tmp_path: Path, name: str
) -> None:
    config = detector_of(models[name])
    lesson = lesson_of(config, dataset, windows, tmp_path)
    assert lesson.windows.teacher is not None
    assert lesson.windows.teacher.dtype == np.float16
    expected = scored(config, dataset, windows)
    np.testing.assert_allclose(lesson.windows.teacher, expected, atol=1e-3)
    assert expected[:, 0].std() > 0.01
    assert np.array_equal(lesson.windows.boxes, windows.boxes)
    assert (lesson.left_out, lesson.unread) == (0, [])


def test_operating_points_play_no_part(
    models: dict[str, str], dataset: Dataset, windows: Windows, tmp_path: Path
) -> None:
    config = detector_of(models["warped"])
    shown = replace(
        config, operating_points=str(tmp_path / "none.json"), suppression=replace(config.suppression, min_score=None)
    )
    each = [lesson_of(one, dataset, windows, tmp_path / str(place)) for place, one in enumerate((config, shown))]
    assert each[0].digest == each[1].digest


def test_a_windows_probabilities_do_not_depend_on_the_others(
    models: dict[str, str], dataset: Dataset, windows: Windows, tmp_path: Path
) -> None:
    """Near-copies are dropped by the detector's cascade, and not by the teacher's."""
    first = scored(detector_of(models["shared"]), dataset, windows)
    threshold = float(np.median(1 - first[:, 0]))
    cascade = CascadeConfig(threshold=threshold, best=3, near=0.3)
    config = detector_of(models["shared"], models["warped"], cascade=cascade)
    alone = replace(config, cascade=replace(cascade, near=1.0, best=0))
    expected = scored(alone, dataset, windows)
    lesson = lesson_of(config, dataset, windows, tmp_path)
    assert lesson.windows.teacher is not None
    np.testing.assert_allclose(lesson.windows.teacher, expected, atol=1e-3)
    rejected = 1 - first[:, 0] <= threshold
    assert 0 < rejected.sum() < len(windows)
    assert np.abs(expected - first)[rejected].max() < 1e-5
    assert np.abs(expected - first)[~rejected].max() > 1e-2


def test_classes_meet_by_name(models: dict[str, str], dataset: Dataset, windows: Windows, tmp_path: Path) -> None:
    """The teacher's disc, cone and square: a cone is background to a training of squares and discs."""
    config = detector_of(models["more"])
    lesson = lesson_of(config, dataset, windows, tmp_path)
    background, disc, cone, square = scored(config, dataset, windows).T
    assert lesson.windows.teacher is not None
    np.testing.assert_allclose(lesson.windows.teacher, np.stack([background + cone, square, disc], axis=1), atol=2e-3)
    wanted = ClassTable(("square", "cone", "ring"), (None,) * 3, (1, 2, 3))
    with pytest.raises(
        CheckpointError, match=r"teacher \(.*more.safetensors\) lacks .*: ring; it knows disc, cone, squ"
    ):
        Teacher(config, wanted, tmp_path, Ranks())


def test_hard_negatives_and_unlabelled_objects_reach_the_table(
    models: dict[str, str], dataset: Dataset, windows: Windows, tmp_path: Path
) -> None:
    config, mining = detector_of(models["shared"]), MiningConfig(threshold=0.3, unlabelled=0.6)
    expected = scored(config, dataset, windows).astype(np.float16)
    lesson = lesson_of(config, dataset, windows, tmp_path, mining)
    kept = {(int(image), *box) for image, box in zip(lesson.windows.image, lesson.windows.boxes.tolist(), strict=True)}
    assert lesson.left_out == len(windows) - len(lesson.windows) > 0
    assert not kept & {(one.image, *one.box) for one in lesson.unlabelled}
    assert lesson.hard.any()
    for image, box in zip(lesson.windows.image[lesson.hard], lesson.windows.boxes[lesson.hard], strict=True):
        (row,) = np.flatnonzero((windows.image == image) & (windows.boxes == box).all(axis=1))[:1]
        assert windows.labels[row] == 0
        assert windows.overlaps[row] < 0.3
        assert 1 - expected[row, 0] > 0.299


# ---- kept on disk


Count = Callable[[], int]


@pytest.fixture
def images_scored(monkeypatch: pytest.MonkeyPatch) -> Count:
    """The number of images that a detector has scored since the last question."""
    seen: list[Any] = []
    score_many = Detector.score_many

    def counted(self: Detector, *args: Any) -> Iterator[Any]:
        for source, one in score_many(self, *args):
            seen.append(source)
            yield source, one

    monkeypatch.setattr(Detector, "score_many", counted)

    def count() -> int:
        found = len(seen)
        seen.clear()
        return found

    return count


def test_it_is_computed_once(
    models: dict[str, str], dataset: Dataset, windows: Windows, tmp_path: Path, images_scored: Count
) -> None:
    config = detector_of(models["shared"])
    first = lesson_of(config, dataset, windows, tmp_path)
    assert images_scored() == 4
    again = lesson_of(replace(config, suppression=replace(config.suppression, limit=3)), dataset, windows, tmp_path)
    assert images_scored() == 0
    assert again.digest == first.digest
    order = np.array([3, 0, 2])
    moved = replace(dataset, records=tuple(dataset.records[index] for index in order))
    some = [windows[windows.image == index] for index in order]
    table = Windows.concatenate(
        [replace(part, image=np.full(len(part), index, np.int32)) for index, part in enumerate(some)]
    )
    part = lesson_of(config, moved, table, tmp_path)
    assert images_scored() == 0
    assert first.windows.teacher is not None
    expected = np.concatenate([first.windows.teacher[windows.image == index] for index in order])
    assert np.array_equal(part.windows.teacher, expected)
    assert part.digest != first.digest
    lesson_of(detector_of(models["warped"]), dataset, windows, tmp_path)
    lesson_of(replace(config, mirror=True), dataset, windows, tmp_path)
    assert images_scored() == 8


def test_an_interrupted_pass_continues(
    models: dict[str, str],
    dataset: Dataset,
    windows: Windows,
    tmp_path: Path,
    images_scored: Count,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = detector_of(models["shared"])
    whole = lesson_of(config, dataset, windows, tmp_path / "whole")
    images_scored()
    counted = Detector.score_many

    def stop(self: Detector, *args: Any) -> Iterator[Any]:
        for number, one in enumerate(counted(self, *args)):
            if number == 2:
                raise KeyboardInterrupt
            yield one

    with monkeypatch.context() as patch:
        patch.setattr(Detector, "score_many", stop)
        with pytest.raises(KeyboardInterrupt):
            lesson_of(config, dataset, windows, tmp_path / "part")
    images_scored()
    resumed = lesson_of(config, dataset, windows, tmp_path / "part")
    assert images_scored() == 2
    assert resumed.digest == whole.digest


def test_the_same_photograph_twice(models: dict[str, str], dataset: Dataset, windows: Windows, tmp_path: Path) -> None:
    """Under two names, with windows of which some are the same."""
    twice = replace(dataset, records=(dataset.records[0], replace(dataset.records[0], image_id="again")))
    first = windows[windows.image == 0]
    part = first[5:20]
    table = Windows.concatenate([first[:12], replace(part, image=np.ones(len(part), np.int32))])
    config = detector_of(models["shared"])
    lesson = lesson_of(config, twice, table, tmp_path)
    whole = lesson_of(config, dataset, windows, tmp_path / "other")
    assert whole.windows.teacher is not None
    expected = whole.windows.teacher[windows.image == 0]
    assert lesson.windows.teacher is not None
    np.testing.assert_allclose(lesson.windows.teacher, np.concatenate([expected[:12], expected[5:20]]), atol=1e-3)


def test_an_image_that_cannot_be_read_is_left_out_and_named(
    models: dict[str, str], dataset: Dataset, windows: Windows, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    records = list(dataset.records)
    records[1] = replace(records[1], path=tmp_path / "bad.png")
    records[2] = replace(records[2], path=tmp_path / "gone.png")
    lesson = lesson_of(detector_of(models["shared"]), replace(dataset, records=tuple(records)), windows, tmp_path)
    assert sorted(line.split(":")[0] for line in lesson.unread) == [f"{tmp_path}/bad.png", f"{tmp_path}/gone.png"]
    assert set(lesson.windows.image.tolist()) == {0, 3}
    assert lesson.windows.teacher is not None
    assert len(lesson.windows) == len(lesson.windows.teacher) == len(lesson.hard)


def test_one_training_scores_at_a_time(
    models: dict[str, str], dataset: Dataset, windows: Windows, tmp_path: Path
) -> None:
    config = detector_of(models["shared"])
    lesson_of(config, dataset, windows, tmp_path)
    (folder,) = tmp_path.iterdir()
    lock = Lock(folder / ".lock")
    try:
        with pytest.raises(TrainingError, match="another training scores its windows with this teacher"):
            lesson_of(config, dataset, windows, tmp_path)
    finally:
        lock.release()


# ---- the loss


def taught(
    models: dict[str, str], dataset: Dataset, windows: Windows, tmp_path: Path, **settings: Any
) -> tuple[Loop, WindowBatches]:
    lesson = lesson_of(detector_of(models["warped"]), dataset, windows, tmp_path / "scores")
    sampler = BatchSampler(lesson.windows, batch=16, foreground=6, seed=0)
    batches = WindowBatches(dataset, sampler, REGIONS, (120.0, 120.0, 120.0))
    data = DataConfig(DatasetKind.voc, "", "train")
    config = FineTuneConfig(
        train=data, val=data, init="", batch=16, foreground=6, workers=0, precision="float32", averaging="none",
        teacher=detector_of(models["warped"]), **settings,
    )  # fmt: skip
    torch.manual_seed(0)
    network = GoogLeNet(GoogLeNetConfig(classes=3, width=0.25, initialisation="xavier", dropout=0.0))
    student = RegionClassifier(network.eval(), CONVENTION, REGIONS, CLASSES)
    return Loop(FineTuning(config, student, batches, batches), config, tmp_path), batches


def test_a_batch_has_the_teachers_probabilities(
    models: dict[str, str], dataset: Dataset, windows: Windows, tmp_path: Path
) -> None:
    _, batches = taught(models, dataset, windows, tmp_path)
    squares, teacher, labels = batches[4]
    drawn, _ = batches.sampler.draw(4)
    assert (len(squares), len(labels)) == (16, 16)
    assert np.array_equal(teacher.numpy(), drawn.teacher)
    expected = scored(detector_of(models["warped"]), dataset, drawn)
    np.testing.assert_allclose(teacher, expected, atol=1e-3)


def test_weight_0_is_the_loss_of_the_labels_and_more_adds_the_teachers(
    models: dict[str, str], dataset: Dataset, windows: Windows, tmp_path: Path
) -> None:
    distillation = DistillationConfig(0.7, 2.0, 0.4)
    plain, batches = taught(models, dataset, windows, tmp_path)
    both, _ = taught(models, dataset, windows, tmp_path, distillation=distillation)
    squares, teacher, labels = batches[0]
    labels = torch.where(torch.arange(16) % 5 == 4, -1, labels)  # some are ignored
    task = plain.task
    assert isinstance(task, FineTuning)
    task.network.eval()
    both.task.network.eval()
    with torch.no_grad():
        logits = task.network.classify(task.features(task.network, (squares, labels)))
        old = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / 16
        assert float(task.loss((squares, labels))) == float(task.loss((squares, teacher, labels))) == float(old)
        more = distillation_loss(logits, teacher, distillation)[labels >= 0].sum() / 16
        assert float(both.task.loss((squares, teacher, labels))) == pytest.approx(float(old + 0.7 * more), rel=1e-5)


def test_a_student_comes_to_agree_with_its_teacher(
    models: dict[str, str], dataset: Dataset, windows: Windows, tmp_path: Path
) -> None:
    """A teacher that contradicts the labels, most of which are background: a disc is everywhere."""
    settings: dict[str, Any] = {"learning_rate": 0.002, "warmup": 1, "train_from": "inception_5b"}
    divergence = []
    for weight in (0.0, 8.0):
        loop, batches = taught(
            models, dataset, windows, tmp_path, distillation=DistillationConfig(weight, 1.0, 1.0), **settings
        )
        task = loop.task
        assert isinstance(task, FineTuning)
        squares, _, labels = batches[0]
        teacher = torch.tensor([0.2, 0.1, 0.7]).expand(16, 3)

        def measured(task: FineTuning = task, squares: Tensor = squares, teacher: Tensor = teacher) -> float:
            with torch.no_grad():
                logits = task.network.eval().classify(task.features(task.network, (squares,)))
            return float(F.kl_div(logits.log_softmax(dim=1), teacher, reduction="batchmean"))

        divergence.append(measured())
        for _ in range(15):
            loop.learn((squares, teacher, labels))
        divergence.append(measured())
    first, with_labels, again, with_teacher = divergence
    assert first == again
    assert with_labels > first
    assert with_teacher < 0.5 * first


# ---- runs

Run = Callable[..., Path]


@pytest.fixture(scope="module")
def run(shapes: Path, models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trains a toy with a teacher in a folder of its own, or goes on in one."""
    data = {"kind": "voc", "root": str(shapes), "classes": list(CLASSES.names)}
    settings: dict[str, Any] = {
        "name": "toy", "precision": "float32", "images": 2, "init": models["warped"],
        "shared": {"pyramid": [96, 192], "region": 64, "grid": 14},
        "train": data | {"split": "train"}, "val": data | {"split": "val"},
        "proposals": {"width": 0, "min_width": 8}, "regions": {"size": 64, "context": 4}, "linear_batches": 2,
        "epochs": 2, "batches_per_epoch": 2, "batch": 16, "foreground": 4, "val_batches": 1, "workers": 0,
        "average_decay": 0.5, "cache": str(tmp_path_factory.mktemp("cache")), "box_jitter": 0.1, "context_jitter": 2.0,
        "teacher": {"models": [models["shared"]], "precision": "float32"},
        "mining": {"background": 4, "threshold": 0.2, "unlabelled": 0.6}, "distillation": {"weight": 0.5},
    }  # fmt: skip

    return runner(settings, tmp_path_factory)


@pytest.mark.parametrize("mode", ["warp", "shared"])
def test_a_run_with_a_teacher_goes_on_to_the_same_bits(
    run: Run, mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images_scored: Count
) -> None:
    whole = run(mode=mode)
    learn = Loop.learn

    def stop(self: Loop, batch: tuple[Tensor, ...]) -> float:
        value = learn(self, batch)
        self.stopping = self.step == 3
        return value

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "learn", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, mode=mode)
    images_scored()
    resumed = run(tmp_path, mode=mode, resume=True)
    assert images_scored() == 3  # val, by the finished detector; the teacher none
    first, second = (load_file(folder / "last.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    with (whole / "unlabelled.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert {row["image"] for row in rows} <= {f"train{index}" for index in range(4)}
    assert {row["class"] for row in rows} <= set(CLASSES.names)
    assert all(0.6 < float(row["score"]) <= 1 for row in rows)


def test_what_the_teacher_finds_is_told(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(epochs=1)
    (line,) = (line for line in caplog.messages if line.startswith("teacher: "))
    assert "hard negatives" in line
    assert line.endswith("left out: runs/toy/unlabelled.csv")


def test_another_teacher_of_the_same_name_is_no_resumption(run: Run, models: dict[str, str], tmp_path: Path) -> None:
    copy = tmp_path / "teacher.safetensors"
    copy.write_bytes(Path(models["shared"]).read_bytes())
    teacher = {"models": [str(copy)], "precision": "float32"}
    run(tmp_path, epochs=1, teacher=teacher)
    classifier = load_checkpoint(copy)
    with torch.no_grad():
        classifier.network.fc.bias.add_(torch.tensor([0.5, 0.0, 0.0]))
    save_checkpoint(copy, classifier)
    with pytest.raises(TrainingError, match=r"other scores of a teacher; name=OTHER"):
        run(tmp_path, epochs=1, teacher=teacher, resume=True)


def test_no_hard_negative_is_one_line(run: Run) -> None:
    with pytest.raises(TrainingError, match=r"no window is a hard negative: .* above 0.999; lower mining.threshold"):
        run(mining={"background": 4, "threshold": 0.999, "unlabelled": 1.0})


def test_a_teacher_that_lacks_a_class_is_refused_before_proposals(
    run: Run, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector.training.run.dataset_proposals", lambda *_: pytest.fail("proposals were computed"))
    classes = [*CLASSES.names, "cone"]
    data = {"kind": "voc", "root": str(shapes), "classes": classes}
    with pytest.raises(CheckpointError, match=r"lacks classes of the training: cone"):
        run(train=data | {"split": "train"}, val=data | {"split": "val"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mining": MiningConfig(background=8)}, "mining.background needs a teacher, .* try teacher.extends=default"),
        ({"distillation": DistillationConfig(0.5)}, "distillation.weight needs a teacher"),
        (
            {"teacher": DetectorConfig(), "mining": KEEP_ALL},
            "nothing is learned from the teacher; set mining.background",
        ),
        (
            {"teacher": DetectorConfig(), "mining": MiningConfig(background=90), "hard_background": 10},
            r"mining.background must be at most 86 \(batch - foreground - hard_background\), not 90",
        ),
        ({"refit_balance": 2.0}, r"refit_balance must be in \[0, 1\], not 2.0"),
    ],
)
def test_settings_that_are_refused(values: dict[str, Any], message: str) -> None:
    data = DataConfig(DatasetKind.voc, "", "train")
    with pytest.raises(ValueError, match=message):
        FineTuneConfig(train=data, val=data, init="", **values)


# ---- the last layer fitted anew


@pytest.mark.parametrize("mode", ["warp", "shared"])
def test_only_the_last_layer_is_fitted_anew(run: Run, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []

    def fit(features: Tensor, labels: Tensor, outputs: int, **settings: float) -> tuple[Tensor, Tensor]:
        fitted.append((features, labels))
        return fit_linear(features, labels, outputs, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("detector.training.regions.fit_linear", fit)
    folder = run(mode=mode, refit_batches=3, refit_balance=1.0, regression_windows=50)
    best, found = (load_file(folder / f"{name}.safetensors") for name in ("best", "refit"))
    assert {name for name, tensor in best.items() if not torch.equal(tensor, found[name])} == {"fc.weight", "fc.bias"}
    (_, before), (features, labels) = fitted
    assert (len(before), len(labels)) == (2 * 16, 3 * 16)
    weight, bias = fit_linear(features, labels, 3, weight_decay=1e-3)
    torch.testing.assert_close(found["fc.weight"].float(), weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found["fc.bias"].float(), bias, rtol=1e-3, atol=1e-3)
    network = load_checkpoint(folder / "best.safetensors").network
    assert features.shape[1] == network.fc.in_features


def test_a_resumed_run_does_not_fit_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(tmp_path, epochs=1, refit_batches=2)
    monkeypatch.setattr("detector.training.regions.fit_linear", lambda *_, **__: pytest.fail("fitted again"))
    assert run(tmp_path, epochs=1, refit_batches=2, resume=True) == folder
