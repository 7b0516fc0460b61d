"""Training on whole images: a toy run, an interrupted one against it, members, continued weights, two processes."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from foreign_weights import to_caffe
from safetensors.torch import load_file, save_file
from torch import nn

from detector.checkpoint import load_any_classifier
from detector.classification.crops import cut_crops, plan_crops
from detector.config import ConfigError, load_config, save_config
from detector.data.ground_truth import DataError
from detector.data.image import read_image
from detector.data.labelled_images import ImagesConfig, open_images
from detector.model_files import CheckpointError
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import network_input
from detector.training.images import ImageTraining, ImageTrainingConfig, start_image_classifier
from detector.training.loop import Loop
from detector.training.ranks import Ranks
from detector.training.record import TrainingError, read_metrics
from detector.training.run import members, train
from detector.training.task import Batch

ROOT = Path(__file__).parent.parent
Train = Callable[..., list[Path]]
COLOURS = {"blue": 2, "green": 1, "red": 0}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise with one strong colour, 6 images a class to learn from and 3 to measure on."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name, channel in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = generator.integers(0, 120, (70, 90, 3))
                image[..., channel] += 130
                PIL.Image.fromarray(image.astype(np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def settings(photos: Path) -> dict[str, Any]:
    """Two epochs of two batches and a half: 18 images by 7, and batches cross the border between passes."""
    return {
        "task": "images",
        "name": "toy",
        "precision": "float32",  # the same on every processor
        "train": {"root": str(photos), "split": "train"},
        "val": {"root": str(photos), "split": "val"},
        "network": {"width": 0.25, "norm": "batch", "auxiliary_heads": 1, "initialisation": "xavier"},
        "size": 64,
        "epochs": 2,
        "batch": 8,
        "learning_rate": 0.01,
        "averaging": "ema",
        "average_decay": 0.5,
        "batch_norm_batches": 2,
        "workers": 0,
    }


@pytest.fixture(scope="module")
def toy_train(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Runs the settings with some changed; without a folder the run gets one of its own."""

    def run(folder: Path | None = None, *, resume: bool = False, **changes: Any) -> list[Path]:
        folder = folder or tmp_path_factory.mktemp("training")
        (folder / "toy.yaml").write_text(yaml.safe_dump(settings | changes))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            return [path.resolve() for path in train("toy.yaml", [], device="cpu", resume=resume)]

    return run


@pytest.fixture(scope="module")
def whole(toy_train: Train) -> Path:
    """The folder of an unbroken run."""
    (folder,) = toy_train()
    return folder


def task_of(settings: dict[str, Any], ranks: Ranks | None = None, **changes: Any) -> ImageTraining:
    config = make_config(settings, **changes)
    train_set = open_images(config.train)
    classifier = start_image_classifier(config, train_set.classes)
    return ImageTraining(config, classifier, train_set, open_images(config.val), ranks or Ranks())


def make_config(settings: dict[str, Any], **changes: Any) -> ImageTrainingConfig:
    plain = {key: value for key, value in (settings | changes).items() if key not in ("train", "val", "network")}
    network = GoogLeNetConfig(**(settings["network"] | changes.get("network", {})))
    return ImageTrainingConfig(
        train=ImagesConfig(**settings["train"]), val=ImagesConfig(**settings["val"]), network=network, **plain
    )


def timeless(folder: Path) -> list[dict[str, float]]:
    return [
        {key: value for key, value in row.items() if not key.endswith("second") and not key.endswith("seconds")}
        for row in read_metrics(folder)
    ]


def assert_same_run(first: Path, second: Path) -> None:
    """The same bits in weights, averages and momentum, and the same metrics."""
    for name in ("best", "last"):
        expected, found = load_file(first / f"{name}.safetensors"), load_file(second / f"{name}.safetensors")
        assert [key for key, tensor in expected.items() if not torch.equal(tensor, found[key])] == []
    before, after = (torch.load(folder / "state.pt", weights_only=True) for folder in (first, second))
    assert (before["step"], before["best"]) == (after["step"], after["best"])
    for part in ("network", "average"):
        assert all(torch.equal(after[part][key], tensor) for key, tensor in before[part].items())
    for key, momentum in before["optimiser"]["state"].items():
        assert torch.equal(after["optimiser"]["state"][key]["momentum_buffer"], momentum["momentum_buffer"])
    assert timeless(first) == timeless(second)


# ---- a run


def test_a_run_leaves_its_record(whole: Path) -> None:
    weights, record = {"best.safetensors", "last.safetensors"}, {"config.yaml", "report.html", "metrics.jsonl"}
    assert {path.name for path in whole.iterdir()} - {"tensorboard"} == weights | record | {"run.json", "state.pt"}
    rows = read_metrics(whole)
    assert [row["epoch"] for row in rows] == [1, 2]
    columns = {"train_loss", "learning_rate", "val_loss", "val_top1_error", "val_top5_error", "images_per_second"}
    assert columns < set(rows[0])
    classifier = load_any_classifier(whole / "last.safetensors")
    assert (classifier.classes, classifier.size) == (("blue", "green", "red"), 64)
    assert classifier.network.config.auxiliary_heads == 0


def test_colours_are_learned(toy_train: Train) -> None:
    (folder,) = toy_train(epochs=12, network={"width": 0.25, "norm": "batch", "initialisation": "xavier"})
    assert min(row["val_top1_error"] for row in read_metrics(folder)) == 0


@pytest.mark.parametrize("step", [0, 1, 3])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    whole: Path, toy_train: Train, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Loop.learn

    def stopped(self: Loop, batch: Batch) -> float:
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "learn", stopped)
        with pytest.raises(KeyboardInterrupt):
            toy_train(tmp_path)
    state = torch.load(tmp_path / "runs/toy/state.pt", weights_only=True)
    assert state["step"] == step + 1  # the batch under way was finished and saved
    torch.manual_seed(step)  # what the interpreter's generator holds does not matter
    np.random.seed(step)  # noqa: NPY002 - nor what NumPy's does
    (resumed,) = toy_train(tmp_path, resume=True)
    assert_same_run(whole, resumed)


def test_a_run_killed_outright_goes_on_to_the_same_bits(whole: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    """SIGKILL at any moment after the first epoch's row: nothing is asked of the process that dies."""
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings | {"save_minutes": 0}))
    command = [sys.executable, str(ROOT / "tools/train_classifier.py"), "--config", "toy.yaml", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
    )
    state = tmp_path / "runs/toy/state.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert state.exists()
    done = subprocess.run([*command, "--resume", "auto"], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert_same_run(whole, tmp_path / "runs/toy")


def test_rows_of_an_epoch_that_was_not_saved_are_made_again(
    whole: Path, toy_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Loop) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "save_state", killed)  # right after the row was written
        with pytest.raises(KeyboardInterrupt):
            toy_train(tmp_path)
    assert len(read_metrics(tmp_path / "runs/toy")) == 1
    (resumed,) = toy_train(tmp_path, resume=True)
    assert timeless(resumed) == timeless(whole)


def test_members_differ_in_order_and_sampling_and_share_the_start(settings: dict[str, Any], tmp_path: Path) -> None:
    variants = [["sampling.area=[0.3, 1.0]"], ["sampling.area=[0.08, 0.5]", "learning_rate=0.5"]]
    config = make_config(settings, seed=5, variants=variants)
    save_config(config, tmp_path / "toy.yaml")
    runs = members(ImageTrainingConfig, tmp_path / "toy.yaml", ["members=3"])
    assert [run.name for run in runs] == ["toy-1", "toy-2", "toy-3"]
    assert [run.seed for run in runs] == [5, 6, 7]
    assert [run.sampling.area for run in runs if isinstance(run, ImageTrainingConfig)] == [
        (0.3, 1.0),
        (0.08, 0.5),
        (0.3, 1.0),
    ]
    assert [run.learning_rate for run in runs] == [config.learning_rate, 0.5, config.learning_rate]
    assert [(run.members, run.variants) for run in runs] == [(1, [])] * 3  # each can be run again by itself
    (alone,) = members(ImageTrainingConfig, tmp_path / "toy.yaml")
    assert (alone.name, alone.sampling.area) == ("toy", (0.3, 1.0))  # type: ignore[union-attr]
    starts = [start_image_classifier(run, ("a", "b")) for run in runs if isinstance(run, ImageTrainingConfig)]
    for other in starts[1:]:
        assert torch.equal(starts[0].network.fc.weight, other.network.fc.weight)


def test_members_are_runs_of_their_own(toy_train: Train, tmp_path: Path) -> None:
    first, second = toy_train(tmp_path, members=2, epochs=1)
    assert (first.name, second.name) == ("toy-1", "toy-2")
    assert load_config(ImageTrainingConfig, second / "config.yaml").seed == 1
    weights = [load_file(folder / "last.safetensors")["fc.weight"] for folder in (first, second)]
    assert not torch.equal(*weights)
    before = (first / "state.pt").stat().st_mtime_ns
    again = toy_train(tmp_path, members=3, epochs=1, resume=True)  # one more: the others are done
    assert [folder.name for folder in again] == ["toy-1", "toy-2", "toy-3"]
    assert len(read_metrics(first)) == 1
    assert (first / "state.pt").stat().st_mtime_ns == before


# ---- going on from other weights


def test_init_from_a_run_starts_at_its_averaged_weights(whole: Path, settings: dict[str, Any]) -> None:
    config = make_config(settings, init_from=str(whole), learning_rate=0.1)
    network = start_image_classifier(config, ("blue", "green", "red")).network
    state = torch.load(whole / "state.pt", weights_only=True)["average"]
    for name, tensor in network.state_dict().items():  # the auxiliary head too
        assert torch.equal(tensor, state[f"module.{name}"]), name
    assert any(name.startswith("auxiliary1") for name in network.state_dict())


def test_init_from_with_other_classes_has_a_fresh_last_layer(whole: Path, settings: dict[str, Any]) -> None:
    config = make_config(settings, init_from=str(whole))
    network = start_image_classifier(config, ("blue", "green", "red", "white")).network
    before = load_file(whole / "last.safetensors")
    assert torch.equal(network.state_dict()["trunk.conv1.conv.weight"], before["trunk.conv1.conv.weight"])
    assert network.fc.weight.shape[0] == 4
    assert network.auxiliary1 is not None
    assert network.auxiliary1.fc2.weight.shape[0] == 4
    # As many classes under other names are others too.
    renamed = start_image_classifier(config, ("a", "b", "c")).network
    assert not torch.equal(renamed.fc.weight, before["fc.weight"])


def test_init_from_the_same_classes_in_another_order(whole: Path, settings: dict[str, Any]) -> None:
    config = make_config(settings, init_from=str(whole))
    previous = load_any_classifier(whole / "last.safetensors").classes
    order = [*range(1, len(previous)), 0]
    straight = start_image_classifier(config, previous)
    turned = start_image_classifier(config, tuple(previous[label] for label in order))
    assert torch.equal(turned.network.fc.weight, straight.network.fc.weight[order])
    assert turned.network.auxiliary1 is not None
    assert straight.network.auxiliary1 is not None
    assert torch.equal(turned.network.auxiliary1.fc2.weight, straight.network.auxiliary1.fc2.weight[order])


def test_init_from_weights_of_caffe(settings: dict[str, Any], tmp_path: Path) -> None:
    network = GoogLeNet(GoogLeNetConfig(classes=10))
    save_file(to_caffe(network), tmp_path / "caffe.safetensors")
    changes: dict[str, Any] = {"init_from": str(tmp_path / "caffe.safetensors")}
    config = make_config(settings, **changes, network={"width": 1.0, "norm": "lrn", "auxiliary_heads": 2})
    started = start_image_classifier(config, ("a", "b"))
    assert torch.equal(started.network.trunk.conv1.conv.weight, network.trunk.conv1.conv.weight)
    assert started.convention.std == (1.0, 1.0, 1.0)
    with pytest.raises(CheckpointError, match=r"norm is lrn, not batch, width is 1\.0, not 0\.25"):
        start_image_classifier(make_config(settings, **changes), ("a", "b"))


# ---- the pieces


def test_every_image_is_shown_once_a_pass(settings: dict[str, Any]) -> None:
    """Eighteen images in batches of eight: nine batches are four passes."""
    task = task_of(settings)
    assert task.batches_per_epoch == 2
    files = [file for step in range(9) for file in task.contents(step)]
    passes = [files[start : start + 18] for start in range(0, 72, 18)]
    assert all(len(set(one)) == 18 for one in passes)
    assert passes[0] != passes[1]
    for step, (squares, labels) in enumerate(task.batches(0, 3)):
        assert squares.shape == (8, 64, 64, 3)
        assert [Path(name).parent.name for name in task.contents(step)] == [
            ("blue", "green", "red")[label] for label in labels.tolist()
        ]


def test_batches_depend_on_their_number_alone(settings: dict[str, Any]) -> None:
    expected = list(task_of(settings).batches(0, 5))
    for workers, start in ((0, 3), (2, 2)):
        for number, (squares, labels) in enumerate(task_of(settings, workers=workers).batches(start, 5), start):
            assert torch.equal(squares, expected[number][0])
            assert torch.equal(labels, expected[number][1])
    other, _ = next(iter(task_of(settings, seed=1).batches(0, 1)))
    assert not torch.equal(other, expected[0][0])


def test_processes_share_each_batch(settings: dict[str, Any]) -> None:
    (whole_batch,) = task_of(settings).batches(1, 2)
    for rank in range(2):
        (part,) = task_of(settings, Ranks(rank, 2)).batches(1, 2)
        assert torch.equal(part[0], whole_batch[0][rank::2])
        assert torch.equal(part[1], whole_batch[1][rank::2])


def test_measure_is_the_error_of_the_centre_crops(settings: dict[str, Any], photos: Path) -> None:
    task = task_of(settings)
    network = task.network.eval()
    loss, wrong = [], 0
    for label, name in enumerate(sorted(COLOURS)):
        for path in sorted((photos / "val" / name).iterdir()):
            image = read_image(path)
            x = network_input(cut_crops(image, plan_crops(1, 90, 70, 64), 64), task.classifier.convention)
            with torch.no_grad():
                (scores,) = network(x).softmax(dim=1)
            loss.append(-math.log(scores[label]))
            wrong += int(scores.argmax()) != label
    row = task.measure(network)
    assert row["val_loss"] == pytest.approx(np.mean(loss), rel=1e-5)
    assert row["val_top1_error"] == pytest.approx(wrong / 9)
    assert row["val_top5_error"] == 0  # of three classes


def gradients(task: ImageTraining, folder: Path) -> dict[str, torch.Tensor]:
    """Of one batch."""
    loop = Loop(task, task.config, folder)
    loop.learn(next(iter(task.batches(0, 1))))
    return {name: p.grad.clone() for name, p in task.network.named_parameters() if p.grad is not None}


PLAIN = {"width": 0.25, "norm": "lrn", "dropout": 0.0, "auxiliary_dropout": 0.0}


def test_a_batch_in_parts_gives_the_same_gradients(settings: dict[str, Any], tmp_path: Path) -> None:
    whole_batch = gradients(task_of(settings, network=PLAIN), tmp_path)
    parts = gradients(task_of(settings, network=PLAIN, accumulate=4), tmp_path)
    assert len(whole_batch) == len(parts) > 100
    for name, gradient in whole_batch.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6)


TWO_PROCESSES = """
import json, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_images_training import task_of, gradients
from detector.training.loop import Loop
from detector.training.ranks import joined
settings, changes, folder = json.loads(sys.argv[2]), json.loads(sys.argv[3]), Path(sys.argv[4])
with joined("cpu") as ranks:
    task = task_of(settings, ranks, **changes)
    metrics = task.measure(task.network.eval())
    loop = Loop(task, task.config, folder, ranks)
    loss = loop.learn(next(iter(task.batches(0, 1))))
    found = {name: p.grad for name, p in task.network.named_parameters()}
    torch.save({"gradients": found, "metrics": metrics, "loss": loss}, folder / f"{ranks.rank}.pt")
"""


@pytest.mark.timeout(120)
def test_two_processes_give_the_gradients_and_metrics_of_one(settings: dict[str, Any], tmp_path: Path) -> None:
    """Under torchrun with gloo; nine val images do not share equally by two, and none counts twice."""
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    changes = {"network": PLAIN}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    arguments = [str(ROOT / "tests"), json.dumps(settings), json.dumps(changes), str(tmp_path)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    task = task_of(settings, network=PLAIN)
    metrics = task.measure(task.network.eval())
    expected = gradients(task, tmp_path)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["metrics"] == pytest.approx(metrics, rel=1e-6)
        assert found["gradients"].keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found["gradients"][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.timeout(120)
def test_a_whole_run_under_torchrun(settings: dict[str, Any], tmp_path: Path) -> None:
    """Two processes write one record, and resuming finds the run done."""
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings | {"epochs": 1}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "tools/train_classifier.py"), "--config", "toy.yaml", "--device", "cpu"]
    for extra in ([], ["--resume", "auto"]):
        done = subprocess.run([*command, *extra], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("done:") == 1
    assert len(read_metrics(tmp_path / "runs/toy")) == 1
    assert load_any_classifier(tmp_path / "runs/toy/best.safetensors").classes == ("blue", "green", "red")


def test_statistics_are_taken_anew_for_the_averaged_weights(settings: dict[str, Any], tmp_path: Path) -> None:
    """After few steps the running averages of batch normalisation are still what they began with."""
    task = task_of(settings, batch_norm_batches=2)
    loop = Loop(task, task.config, tmp_path)
    for batch in task.batches(0, 3):
        loop.learn(batch)
    network = loop.measured_weights()
    norm = network.get_submodule("trunk.conv1.norm")
    assert isinstance(norm, nn.BatchNorm2d)
    x = torch.cat([task.inputs(batch) for batch in task.batches(0, 2)])
    conv = network.get_submodule("trunk.conv1.conv")
    expected = conv(x).mean(dim=(0, 2, 3))
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, expected, rtol=1e-4, atol=1e-4)
    young = task.network.get_submodule("trunk.conv1.norm")
    assert isinstance(young, nn.BatchNorm2d)
    assert young.running_mean is not None
    assert (young.running_mean.abs() < 0.02 * expected.abs() + 1e-6).all()  # momentum 3e-4, three steps


# ---- refusals


def test_a_loss_that_is_not_finite_stops_the_run(toy_train: Train) -> None:
    with pytest.raises(TrainingError) as caught:
        toy_train(learning_rate=1e30, network={"width": 0.25, "norm": "none"})
    message = str(caught.value)
    assert "in epoch 1 at batch 1 of runs/toy: lower learning_rate (now 1e+30)" in message
    assert message.count(".png") == 8
    assert "\n" not in message


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"size": 16}, ConfigError, "size must be at least 32, not 16"),
        ({"variants": [[], ["sampling.area=[0.5, 2]"]]}, ConfigError, "variants: .*sampling.area must be two shares"),
        ({"variants": [["sampling.aria=1"]]}, ConfigError, "variants: no key 'sampling.aria'. Did you"),
        ({"schedule": "steps"}, ConfigError, "schedule must be one of step, poly, cosine, constant, not 'steps'"),
        ({"foreground": 3}, ConfigError, "has no key 'foreground'"),
        ({"init_from": "nowhere.safetensors"}, CheckpointError, "no checkpoint nowhere.safetensors"),
    ],
)
def test_refused_before_anything_is_computed(
    toy_train: Train, tmp_path: Path, changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        toy_train(tmp_path, **changes)
    assert not (tmp_path / "runs").exists()


def test_an_unreadable_image_ends_the_run_and_its_workers(
    settings: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    """A worker that ignored its parent's farewell once kept the command waiting forever."""
    (tmp_path / "bad" / "blue").mkdir(parents=True)
    (tmp_path / "bad" / "red").mkdir()
    for name in ("blue", "red"):
        (tmp_path / "bad" / name / "1.jpg").write_text("no image")
    changes = {
        "train": {"root": str(tmp_path / "bad")},
        "val": {"root": str(tmp_path / "bad")},
        "workers": 1,
        "batch": 2,
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings | changes))
    command = [sys.executable, str(ROOT / "tools/train_classifier.py"), "--config", "toy.yaml", "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(r"^train_classifier: .*1.jpg: not an image in a known format", done.stderr, re.MULTILINE)


def test_a_val_class_that_train_lacks(toy_train: Train, settings: dict[str, Any], tmp_path: Path) -> None:
    for name in ("blue", "violet"):
        (tmp_path / "odd" / name).mkdir(parents=True)
        PIL.Image.new("RGB", (40, 40)).save(tmp_path / "odd" / name / "1.png")
    with pytest.raises(DataError, match=r"train .*'violet' \(1 of 2"):
        toy_train(val={"root": str(tmp_path / "odd")})


def test_a_batch_that_processes_cannot_share(settings: dict[str, Any], tmp_path: Path) -> None:
    task = task_of(settings)
    config = replace(task.config, batch=9)
    with pytest.raises(TrainingError, match=r"batch of 9 .*2 processes"):
        Loop(task, config, tmp_path, Ranks(0, 2))


def test_a_run_with_other_settings_is_not_resumed(whole: Path, toy_train: Train) -> None:
    folder = whole.parent.parent
    with pytest.raises(TrainingError, match="--resume auto"):
        toy_train(folder)
    with pytest.raises(TrainingError, match=r"learning_rate = 0\.01, not 0\.02.*name=OTHER"):
        toy_train(folder, resume=True, learning_rate=0.02)
    assert toy_train(folder, resume=True, workers=1, save_minutes=1.0) == [whole]
