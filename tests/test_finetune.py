"""Training on a toy data set: a whole run, an interrupted one against it, and the pieces."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from foreign_weights import to_caffe
from safetensors.torch import load_file, save_file
from training_runs import runner

from detector.checkpoint import load_checkpoint
from detector.config import ConfigError, load_config
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import ClassTable, DataError, with_classes
from detector.device import DeviceError
from detector.extraction import dataset_proposals
from detector.model_files import CheckpointError
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.pretrained import CAFFE_INPUT
from detector.regions.warp import RegionConfig, warp
from detector.training.loop import Loop
from detector.training.record import TrainingError
from detector.training.region_batches import WindowBatches
from detector.training.regions import FineTuneConfig, FineTuning, start_classifier
from detector.training.task import Batch
from detector.training.windows import IGNORED, BatchSampler, collect_windows
from detector.training.workers import load
from proposals.settings import ProposalConfig

Train = Callable[..., Path]
SHAPES = ["square", "disc"]


@pytest.fixture(scope="module")
def settings(shapes: Path, toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two epochs of two batches, every layer learning."""
    data = {"kind": "voc", "root": str(shapes), "classes": SHAPES}
    return {
        "name": "toy",
        "precision": "float32",  # the same on every processor
        "init": str(toy_checkpoint),
        "train": data | {"split": "train"},
        "val": data | {"split": "val"},
        "proposals": {"width": 0, "min_width": 8},
        "regions": {"size": 64, "context": 4},
        "linear_batches": 2,
        "epochs": 2,
        "batches_per_epoch": 2,
        "batch": 8,
        "foreground": 3,
        "warmup": 2,
        "average_decay": 0.5,
        "val_batches": 1,
        "workers": 0,
        "cache": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture(scope="module")
def toy_train(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Runs the settings with some changed; without a folder the run gets one of its own."""
    return runner(settings, tmp_path_factory)


@pytest.fixture(scope="module")
def whole(toy_train: Train) -> Path:
    """The folder of an unbroken run."""
    return toy_train()


@pytest.fixture(scope="module")
def batches(settings: dict[str, Any], shapes: Path) -> WindowBatches:
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", SHAPES))
    store = dataset_proposals(dataset, ProposalConfig(**settings["proposals"]), Path(settings["cache"]), 1)
    proposals = [store.get(record.image_id, record.path.read_bytes()).boxes for record in dataset.records]
    sampler = BatchSampler(collect_windows(dataset, proposals), batch=8, foreground=3, seed=0)
    return WindowBatches(dataset, sampler, RegionConfig(64, 4), (120.0, 120.0, 120.0))


def fine_tuning(batches: WindowBatches, checkpoint: Path, folder: Path, **changes: Any) -> Loop:
    data = DataConfig(DatasetKind.voc, "", "train", SHAPES)
    config = FineTuneConfig(train=data, val=data, init="", batch=8, foreground=3, val_batches=1, workers=0)
    config = replace(config, **changes)
    return Loop(FineTuning(config, load_checkpoint(checkpoint), batches, batches), config, folder)


def interrupt_at(step: int, patch: pytest.MonkeyPatch) -> None:
    learn = Loop.learn

    def stopped(self: Loop, batch: Batch) -> float:
        if self.step == step:
            raise KeyboardInterrupt
        return learn(self, batch)

    patch.setattr(Loop, "learn", stopped)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def timeless(row: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if not key.endswith("second") and not key.endswith("seconds")}


def assert_same_weights(first: Path, second: Path) -> None:
    expected, found = load_file(first), load_file(second)
    assert expected.keys() == found.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])] == []


# ---- a run


def test_a_run_leaves_its_record(whole: Path, settings: dict[str, Any], toy_checkpoint: Path) -> None:
    weights = {"best.safetensors", "last.safetensors", "linear.safetensors"}
    record = {"config.yaml", "metrics.jsonl", "report.html", "run.json", "state.pt"}
    record |= {"detector.yaml", "evaluation.yaml", "best.points.json"}
    assert {path.name for path in whole.iterdir()} - {"tensorboard"} == weights | record
    assert [row["epoch"] for row in rows(whole)] == [0, 1, 2]
    for row in rows(whole):
        assert all(math.isfinite(value) for value in row.values())
        assert 0 <= row["val_foreground_accuracy"] <= 1
    run = json.loads((whole / "run.json").read_text())
    assert set(run) == {"command", "commit", "python", "torch", "device", "best", "finished"}
    losses = [row["val_loss"] for row in rows(whole)]
    assert run["best"] == f"epoch {losses.index(min(losses))}, chosen by val_loss ({min(losses):.5g})"
    assert load_config(FineTuneConfig, whole / "config.yaml").batch == settings["batch"]
    for name in ("linear", "best", "last"):
        classifier = load_checkpoint(whole / f"{name}.safetensors")
        assert classifier.classes.names == ("square", "disc")
        assert classifier.regions == RegionConfig(64, 4)
        assert classifier.convention == load_checkpoint(toy_checkpoint).convention


@pytest.mark.parametrize(("losses", "best"), [((1.0, 2.0, 3.0), 0), ((3.0, 1.0, 2.0), 1), ((3.0, 2.0, 1.0), 2)])
def test_the_best_epoch_is_kept_the_linear_fit_being_one(
    toy_train: Train, losses: tuple[float, ...], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[dict[str, torch.Tensor]] = []

    def measure(self: FineTuning, network: torch.nn.Module) -> dict[str, float]:
        measured.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return {"val_loss": losses[len(measured) - 1]}

    monkeypatch.setattr(FineTuning, "measure", measure)
    folder = toy_train()
    assert torch.load(folder / "state.pt", weights_only=True)["best"] == 1.0
    for name, epoch in (("best", best), ("linear", 0), ("last", 2)):
        kept = load_file(folder / f"{name}.safetensors")
        assert all(torch.equal(tensor, measured[epoch][key]) for key, tensor in kept.items())
    assert not torch.equal(measured[0]["fc.weight"], measured[2]["fc.weight"])


@pytest.mark.parametrize("step", [0, 2, 3])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    whole: Path, toy_train: Train, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(step, patch)
        with pytest.raises(KeyboardInterrupt):
            toy_train(tmp_path)
    torch.manual_seed(step)  # what the interpreter's generator holds does not matter
    resumed = toy_train(tmp_path, resume=True)
    for name in ("linear", "best", "last"):
        assert_same_weights(whole / f"{name}.safetensors", resumed / f"{name}.safetensors")
    before, after = (torch.load(folder / "state.pt", weights_only=True) for folder in (whole, resumed))
    assert (before["step"], before["best"]) == (after["step"], after["best"])
    for part in ("network", "average"):
        assert all(torch.equal(after[part][key], tensor) for key, tensor in before[part].items())
    for key, momentum in before["optimiser"]["state"].items():
        assert torch.equal(after["optimiser"]["state"][key]["momentum_buffer"], momentum["momentum_buffer"])
    assert list(map(timeless, rows(resumed))) == list(map(timeless, rows(whole)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_in_the_middle_of_an_epoch(
    whole: Path, toy_train: Train, tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Loop.learn

    def learn_and_signal(self: Loop, batch: Batch) -> float:
        os.kill(os.getpid(), number)
        return learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "learn", learn_and_signal)
        with pytest.raises(KeyboardInterrupt):
            toy_train(tmp_path)
    assert torch.load(tmp_path / "runs/toy/state.pt", weights_only=True)["step"] == 1  # of two batches in an epoch
    resumed = toy_train(tmp_path, resume=True)
    assert_same_weights(whole / "last.safetensors", resumed / "last.safetensors")
    assert list(map(timeless, rows(resumed))) == list(map(timeless, rows(whole)))


def test_an_interrupted_linear_fit_begins_anew(
    whole: Path, toy_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("detector.training.regions.fit_linear", stop)
        with pytest.raises(KeyboardInterrupt):
            toy_train(tmp_path, train_from="none")
    again = toy_train(tmp_path, train_from="none", resume=True)
    assert list(map(timeless, rows(again))) == [timeless(rows(whole)[0])]
    assert_same_weights(again / "best.safetensors", whole / "linear.safetensors")


def test_a_finished_run_is_neither_overwritten_nor_resumed_with_other_settings(whole: Path, toy_train: Train) -> None:
    folder = whole.parent.parent
    before = (whole / "state.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"runs/toy .*--resume auto.*name=OTHER"):
        toy_train(folder)
    with pytest.raises(TrainingError, match=r"learning_rate = 0\.001, not 0\.01.*name=OTHER"):
        toy_train(folder, resume=True, learning_rate=0.01)
    assert toy_train(folder, resume=True, workers=1) == whole  # how it is computed may change, and it is done
    assert (whole / "state.pt").read_bytes() == before
    assert len(rows(whole)) == 3


def test_layers_below_train_from_stay(toy_train: Train, toy_checkpoint: Path) -> None:
    folder = toy_train(train_from="inception_5a", epochs=1)
    before, after = load_file(toy_checkpoint), load_file(folder / "last.safetensors")
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed
    assert {name.split(".")[1] for name in changed if name.startswith("trunk.")} == {"inception_5a", "inception_5b"}


def test_weights_with_caffes_names_start_a_run(settings: dict[str, Any], tmp_path: Path) -> None:
    network = GoogLeNet(GoogLeNetConfig(classes=10))
    save_file(to_caffe(network), tmp_path / "caffe.safetensors")
    data = DataConfig(DatasetKind.voc, settings["train"]["root"], "train", SHAPES)
    config = FineTuneConfig(train=data, val=data, init=str(tmp_path / "caffe.safetensors"))
    classifier = start_classifier(config, open_dataset(data).classes)
    assert classifier.convention == CAFFE_INPUT
    assert classifier.network.fc.weight.shape == (3, 1024)
    assert torch.equal(classifier.network.trunk.conv1.conv.weight, network.trunk.conv1.conv.weight)


# ---- refusals


def test_a_loss_that_is_not_finite_stops_the_run(toy_train: Train) -> None:
    with pytest.raises(TrainingError) as caught:
        toy_train(learning_rate=1e30, warmup=0, momentum=0.0)
    message = str(caught.value)
    assert message.startswith("the loss is ")
    assert "in epoch 1 at batch 1 of runs/toy: lower learning_rate (now 1e+30) and start another run" in message
    assert re.search(r"The batch: \S+\.png", message)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"init": "nowhere.safetensors"}, CheckpointError, r"no pretrained weights nowhere.safetensors; set init=FILE"),
        ({"train_from": "inception_6a"}, ValueError, r"the trunk has no layer 'inception_6a'; it has conv1, pool1"),
        ({"batches": 4}, ConfigError, r"toy.yaml: has no key 'batches'. Did you mean"),
        ({"foreground": 8}, ConfigError, r"foreground must be in 1..7 \(batch - 1\), not 8"),
        ({"epochs": 0}, ConfigError, "epochs must be at least 1, not 0"),
        ({"average_decay": 1.0}, ConfigError, r"average_decay must be in \[0, 1\), not 1.0"),
        (
            {"precision": "float16"},
            DeviceError,
            "precision=float16 trains on CUDA devices, not on cpu; set precision=auto",
        ),
        ({"task": "image"}, ConfigError, "toy.yaml: task must be one of .*, not 'image'"),
        ({"batch": 9, "accumulate": 2}, ConfigError, "accumulate must divide batch, and 2 does not divide 9"),
        ({"regions": {"size": 16}}, ConfigError, "regions.size must be at least 32 px, not 16"),
    ],
)
def test_refused_before_anything_is_computed(
    toy_train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    kind: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr("detector.training.run.dataset_proposals", lambda *_: pytest.fail("proposals were computed"))
    with pytest.raises(kind, match=message):
        toy_train(tmp_path, **changes)
    assert not (tmp_path / "runs").exists()


def test_what_there_is_to_learn_from_is_told_before_the_proposals(
    toy_train: Train,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    shapes: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Begun(Exception):
        """The proposals are asked for."""

    def begin(*_: object) -> None:
        raise Begun

    monkeypatch.setattr("detector.training.run.dataset_proposals", begin)
    caplog.set_level("INFO")
    with pytest.raises(Begun):
        toy_train(
            train=settings["train"] | {"classes": ["square", "disc", "cone"]},
            val=settings["val"] | {"classes": ["disc", "square"]},
        )
    lines = caplog.messages
    assert any(line.split()[-3:] == ["square", "4", "3"] for line in lines)
    assert any(line.split()[-3:] == ["cone", "0", "0"] for line in lines)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("cone" in line and "train" in line for line in warnings)
    shutil.copytree(shapes, tmp_path / "bare")
    for path in (tmp_path / "bare/Annotations").iterdir():
        path.write_text("<annotation><size><width>96</width><height>80</height></size></annotation>")
    with pytest.raises(DataError, match="no object"):
        toy_train(train=settings["train"] | {"root": str(tmp_path / "bare")})
    with pytest.raises(DataError, match="no object"):
        toy_train(val=settings["val"] | {"root": str(tmp_path / "bare")})


def test_train_and_val_meet_by_the_names_of_their_classes(shapes: Path, settings: dict[str, Any]) -> None:
    """Two exports of one tool: another order, other numbers."""
    train, val = (
        open_dataset(DataConfig(DatasetKind.voc, str(shapes), "val", classes=classes))
        for classes in (["square", "disc"], ["disc", "square"])
    )
    assert train.records[0].labels.tolist() == [0, 1]
    assert val.records[0].labels.tolist() == [1, 0]
    assert with_classes(val, train.classes, "train").records[0].labels.tolist() == [0, 1]
    more = ClassTable(("cone", "disc", "square"), (None,) * 3, (0, 1, 2))
    met = with_classes(val, more, "train")
    assert met.records[0].labels.tolist() == [2, 1]
    assert any("cone" in line for line in met.warnings)
    with pytest.raises(DataError, match=r"square \(3 objects\)"):
        with_classes(val, ClassTable(("disc",), (None,), (1,)), "train")


# ---- the pieces


def test_a_batch_is_the_warped_windows(batches: WindowBatches) -> None:
    squares, labels = batches[3]
    windows, mirrored = batches.sampler.draw(3)
    assert squares.shape == (8, 64, 64, 3)
    assert labels.dtype == torch.int64
    assert labels.tolist() == windows.labels.tolist()
    assert 0 < mirrored.sum() < 8
    for index in range(8):
        image = batches.dataset.records[windows.image[index]].read()
        (region,) = warp(image, windows.boxes[index : index + 1], batches.regions, batches.fill)
        assert np.array_equal(squares[index], region[:, ::-1] if mirrored[index] else region)


def test_workers_give_the_same_batches_in_order(batches: WindowBatches) -> None:
    for (squares, labels), number in zip(load(batches, range(2, 7), 2), range(2, 7), strict=True):
        expected, expected_labels = batches[number]
        assert torch.equal(squares, expected)
        assert torch.equal(labels, expected_labels)


def test_the_learning_rate_rises_then_falls(batches: WindowBatches, toy_checkpoint: Path, tmp_path: Path) -> None:
    run = fine_tuning(batches, toy_checkpoint, tmp_path, learning_rate=0.2, warmup=4, epochs=2, batches_per_epoch=10)
    for step, share in ((0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0), (10, 1.0), (19, 1.0)):
        expected = 0.2 * share * (1 + math.cos(math.pi * step / 20)) / 2
        assert run.learning_rate(step) == pytest.approx(expected)
    assert run.learning_rate(10) == pytest.approx(0.1)
    assert run.learning_rate(19) < 0.002
    assert [group["weight_decay"] for group in run.optimiser.param_groups] == [0.0005, 0.0]


def test_the_loss_falls_on_a_fixed_batch(batches: WindowBatches, toy_checkpoint: Path, tmp_path: Path) -> None:
    run = fine_tuning(batches, toy_checkpoint, tmp_path, learning_rate=3e-3, warmup=1, train_from="inception_5b")
    losses = [run.learn(batches[0]) for _ in range(16)]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:2])


def test_measure_counts_foreground_and_background_apart(
    batches: WindowBatches, toy_checkpoint: Path, tmp_path: Path
) -> None:
    task = fine_tuning(batches, toy_checkpoint, tmp_path).task
    with torch.no_grad():
        task.network.fc.weight.zero_()
        task.network.fc.bias.copy_(torch.tensor([2.0, 1.0, 0.0]))
    row = task.measure(task.network.eval())
    assert (row["val_foreground_accuracy"], row["val_background_accuracy"]) == (0, 1)
    probability = torch.tensor([2.0, 1.0, 0.0]).softmax(dim=0)
    _, labels = batches[0]
    assert row["val_loss"] == pytest.approx(float(-probability[labels].log().mean()), rel=1e-5)
    assert task.measure(task.network) == row


class EverySecond(WindowBatches):
    """The same batches, but every second window is an example of nothing."""

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        squares, labels = super().__getitem__(number)
        return squares, torch.where(torch.arange(len(labels)) % 2 == 0, IGNORED, labels)


def test_what_is_an_example_of_nothing_is_not_learned(
    batches: WindowBatches, toy_checkpoint: Path, tmp_path: Path
) -> None:
    some = EverySecond(batches.dataset, batches.sampler, batches.regions, batches.fill)
    task = fine_tuning(some, toy_checkpoint, tmp_path, linear_batches=2).task
    assert isinstance(task, FineTuning)
    task.network.eval()
    squares, labels = some[0]
    known = [index for index, label in enumerate(labels.tolist()) if label != IGNORED]
    assert len(known) == 4
    with torch.no_grad():
        each = [float(task.loss((squares[[index]], labels[[index]]))) for index in range(8)]
        assert each[::2] == [0, 0, 0, 0]
        assert float(task.loss((squares, labels))) == pytest.approx(np.mean(each), rel=1e-4)
        halves = [float(task.loss((squares[part], labels[part]))) for part in (slice(4), slice(4, 8))]
        assert np.mean(halves) == pytest.approx(np.mean(each), rel=1e-4)  # in parts as in one
    row = task.measure(task.network)
    assert row["val_loss"] == pytest.approx(np.mean([each[index] for index in known]), rel=1e-4)

    seen: list[list[int]] = []

    def fit(features: torch.Tensor, labels: torch.Tensor, outputs: int, **_: float) -> tuple[torch.Tensor, ...]:
        seen.append(labels.tolist())
        assert features.shape == (len(labels), task.network.fc.in_features)
        return torch.zeros(outputs, features.shape[1]), torch.zeros(outputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detector.training.regions.fit_linear", fit)
        task.fit_last_layer()
    assert len(seen[0]) == task.config.linear_batches * 4
    assert IGNORED not in seen[0]


def test_a_fork_after_opencv_used_its_threads(batches: WindowBatches) -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (500, 500), interpolation=cv2.INTER_AREA)
        ((_, labels),) = load(batches, range(1), 1)  # hung when a worker found the parent's threads gone
        assert len(labels) == 8
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(before)
