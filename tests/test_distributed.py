"""Training by two processes against one: regions, MultiBox and whole images, with and without batch normalisation."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_detection_ap import independent_ap

from detector.checkpoint import ImageClassifier, RegionClassifier, load_checkpoint, save_checkpoint
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import ClassTable, Record
from detector.data.labelled_images import ImagesConfig, open_images
from detector.extraction import dataset_proposals
from detector.multibox import MultiBoxModel
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention
from detector.regions.maps import SharedConfig
from detector.regions.warp import RegionConfig
from detector.settings import DetectorConfig
from detector.training import region_batches
from detector.training.distillation import DistillationConfig
from detector.training.images import ImageTraining, ImageTrainingConfig, start_image_classifier
from detector.training.jitter import Jitter
from detector.training.loop import Loop
from detector.training.multibox import MultiBoxTrainingConfig, Views
from detector.training.multibox_features import val_features
from detector.training.multibox_tasks import MultiBoxTraining, start_multibox
from detector.training.optimisation import TrainingConfig
from detector.training.ranks import Ranks, joined
from detector.training.record import read_metrics
from detector.training.region_batches import ImageBatches, RegionBatches, WindowBatches
from detector.training.regions import FineTuneConfig, FineTuning
from detector.training.shared_regions import SharedTuning
from detector.training.task import Batch, Task
from detector.training.windows import BatchSampler, ImageSampler, collect_windows
from proposals.multibox.head import MultiBoxConfig
from proposals.settings import ProposalConfig

ROOT = Path(__file__).parent.parent
SHAPES = ["square", "disc"]
BOXES = ProposalConfig(width=0, min_width=8)
CONVENTION = InputConvention(mean=(120.0, 120.0, 120.0), std=(60.0, 60.0, 60.0))
SHARED = SharedConfig([80, 128], region=64, grid=6)
CASES = [(kind, norm) for kind in ("warp", "shared", "multibox", "images") for norm in ("lrn", "batch")]


def narrow(norm: str, classes: int = 3) -> GoogLeNet:
    torch.manual_seed(0)
    return GoogLeNet(GoogLeNetConfig(classes=classes, width=0.25, norm=norm, initialisation="xavier", dropout=0.0))


def data_of(shapes: Path, split: str) -> DataConfig:
    return DataConfig(DatasetKind.voc, str(shapes), split, SHAPES)


def task_of(kind: str, norm: str, shapes: Path, cache: Path, ranks: Ranks) -> tuple[Task, TrainingConfig]:
    train, val = data_of(shapes, "train"), data_of(shapes, "val")
    if kind == "multibox":
        return multibox_task(norm, train, val, ranks)
    if kind == "images":
        return images_task(norm, cache / "photos", ranks)
    counted = {"linear_batches": 2, "val_batches": 2, "workers": 0, "precision": "float32", "averaging": "none"}
    config = FineTuneConfig(
        train=train, val=val, init="", mode=kind, images=2, batch=8, foreground=4, proposals=BOXES,
        teacher=DetectorConfig(), distillation=DistillationConfig(0.5), **counted,
    )  # fmt: skip
    config = replace(config, batch_norm_batches=2 if norm == "batch" and kind == "warp" else 0)
    shared = SHARED if kind == "shared" else None
    classes = ClassTable(tuple(SHAPES), (None, None), (1, 2))
    classifier = RegionClassifier(narrow(norm), CONVENTION, RegionConfig(64, 4), classes, shared=shared)
    # Not with batch normalisation, which magnifies the rounding of few values the more they differ.
    jitter = Jitter(0.2, 2.0) if norm == "lrn" else None
    parts = [examples(open_dataset(data), kind, cache, jitter) for data in (train, val)]
    return (SharedTuning if shared else FineTuning)(config, classifier, *parts, ranks), config


def examples(dataset: Any, kind: str, cache: Path, jitter: Jitter | None) -> RegionBatches:
    """Batches of windows with the probabilities of a teacher."""
    store = dataset_proposals(dataset, BOXES, cache, 1)
    windows = collect_windows(dataset, [store.named(record.image_id).boxes for record in dataset.records])
    chances = np.random.default_rng(0).dirichlet(np.ones(3), len(windows)).astype(np.float16)
    windows = replace(windows, teacher=chances)
    if kind == "shared":
        return ImageBatches(
            dataset, ImageSampler(windows, batch=8, images=2, foreground=4, seed=0), RegionConfig(64, 4), SHARED,
            jitter=jitter,
        )  # fmt: skip
    return WindowBatches(
        dataset, BatchSampler(windows, batch=8, foreground=4, seed=0), RegionConfig(64, 4), CONVENTION.mean,
        jitter=jitter,
    )  # fmt: skip


def multibox_task(norm: str, train: DataConfig, val: DataConfig, ranks: Ranks) -> tuple[Task, TrainingConfig]:
    config = MultiBoxTrainingConfig(
        train=train, val=val, init="", head=MultiBoxConfig(6, 32), size=64, batch=4, workers=0, precision="float32",
        averaging="none", batch_norm_batches=1 if norm == "batch" else 0,
    )  # fmt: skip
    dataset, network = open_dataset(train), narrow(norm)
    model = MultiBoxModel(
        start_multibox(config, network.trunk, network.fc.in_features, dataset).eval(), network.config, CONVENTION, 64
    )
    return MultiBoxTraining(config, model, Views(dataset, config), open_dataset(val), ranks=ranks), config


def images_task(norm: str, photos: Path, ranks: Ranks) -> tuple[Task, TrainingConfig]:
    network = GoogLeNetConfig(
        width=0.25, norm=norm, initialisation="xavier", dropout=0.0, auxiliary_heads=1, auxiliary_dropout=0.0
    )
    splits = [ImagesConfig(root=str(photos), split=split) for split in ("train", "val")]
    config = ImageTrainingConfig(
        train=splits[0], val=splits[1], network=network, size=64, batch=8, workers=0, precision="float32",
        averaging="none", batch_norm_batches=1 if norm == "batch" else 0,
    )  # fmt: skip
    train, val = map(open_images, splits)
    return ImageTraining(config, start_image_classifier(config, train.classes), train, val, ranks), config


def paint(photos: Path) -> None:
    """Noise of two colours: six images a class to learn from, and three and two to measure on."""
    generator = np.random.default_rng(0)
    for split, counts in (("train", (6, 6)), ("val", (3, 2))):
        for channel, count in enumerate(counts):
            folder = photos / split / f"class{channel}"
            folder.mkdir(parents=True)
            for number in range(count):
                image = generator.integers(0, 120, (70, 90, 3))
                image[..., channel] += 130
                PIL.Image.fromarray(image.astype(np.uint8)).save(folder / f"{number}.png")


def steps_of(kind: str, norm: str, shapes: Path, cache: Path, folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Metrics of the fresh weights, loss and gradients of a batch, metrics after it; and what this process read."""
    task, config = task_of(kind, norm, shapes, cache, ranks)
    read, warped = [], []
    read_image, warp = Record.read, region_batches.warp
    Record.read = lambda self: read.append(self.image_id) or read_image(self)  # type: ignore
    region_batches.warp = lambda image, boxes, *rest: warped.append(len(boxes)) or warp(image, boxes, *rest)  # type: ignore
    try:
        metrics = task.measure(task.network.eval())
        measured = (len(read), sum(warped))
        (batch,) = task.batches(0, 1)
        learned = (len(read) - measured[0], sum(warped) - measured[1])
    finally:
        Record.read, region_batches.warp = read_image, warp  # type: ignore
    loop = Loop(task, config, folder, ranks)
    loss = loop.learn(batch)
    gradients = {name: p.grad.clone() for name, p in task.network.named_parameters() if p.grad is not None}
    after = loop.finish_epoch(("last",))
    kept = loop.average.module.named_buffers()
    buffers = {name: buffer.clone() for name, buffer in kept if buffer.is_floating_point()}
    return {
        "metrics": metrics, "loss": loss, "gradients": gradients, "after": after, "buffers": buffers,
        "measured": measured, "learned": learned,
    }  # fmt: skip


def main() -> None:
    """What each process of torchrun does."""
    shapes, cache, folder = map(Path, sys.argv[1:4])
    with joined("cpu") as ranks:
        for kind, norm in CASES:
            own = folder / f"{kind}-{norm}"
            own.mkdir(exist_ok=True)
            torch.save(steps_of(kind, norm, shapes, cache, own, ranks), own / f"{ranks.rank}.pt")


def torchrun(*arguments: object, cwd: Path, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine; ended with torchrun when the time is over."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            process.terminate()  # which it passes on, and after 30 s kills them
            process.wait()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    paint(folder / "photos")
    return folder


@pytest.fixture(scope="module")
def by_two(shapes: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what they found, in one run for all cases."""
    folder = tmp_path_factory.mktemp("two")
    for split in ("train", "val"):
        dataset_proposals(open_dataset(data_of(shapes, split)), BOXES, cache, 1)
    done = torchrun(__file__, shapes, cache, folder, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


class Parts:
    """One process that learns the shares of two one after the other: what the processes do, without them."""

    def __init__(self, task: Task) -> None:
        self.shares = []
        for rank in range(2):
            task.ranks = Ranks(rank, 2)  # type: ignore[attr-defined]
            (share,) = task.batches(0, 1)
            self.shares.append(share)
        task.ranks = Ranks()  # type: ignore[attr-defined]

    def gradients(self, task: Task) -> dict[str, torch.Tensor]:
        task.network.train()
        task.network.zero_grad()
        for share in self.shares:
            (task.loss(share) / 2).backward()  # type: ignore[no-untyped-call]
        return {name: p.grad for name, p in task.network.named_parameters() if p.grad is not None}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("kind", "norm"), CASES)
def test_two_processes_do_as_one(by_two: Path, shapes: Path, cache: Path, tmp_path: Path, kind: str, norm: str) -> None:
    """Batch normalisation takes each process's share for itself, so one process learns the shares in turn there."""
    expected = steps_of(kind, norm, shapes, cache, tmp_path, Ranks())
    found = [torch.load(by_two / f"{kind}-{norm}" / f"{rank}.pt", weights_only=True) for rank in range(2)]
    gradients = expected["gradients"]
    if norm == "batch":
        task, _ = task_of(kind, norm, shapes, cache, Ranks())
        gradients = Parts(task).gradients(task)
    assert len(gradients) > 40
    for one in found:
        assert one["metrics"] == pytest.approx(expected["metrics"], rel=1e-5)
        assert one["gradients"].keys() == gradients.keys()
        for name, gradient in gradients.items():
            difference = torch.linalg.vector_norm(one["gradients"][name] - gradient)
            # Normalising few values, as those of 64 px squares, magnifies rounding.
            tolerance = 0.05 if norm == "batch" else 0.002
            assert difference <= tolerance * torch.linalg.vector_norm(gradient) + 1e-6, name
        if norm == "lrn":
            assert one["loss"] == pytest.approx(expected["loss"], rel=1e-5)
            assert one["after"] == pytest.approx(expected["after"], rel=1e-3)
    # What is kept and measured is one network.
    assert found[0]["after"] == found[1]["after"]
    assert found[0]["buffers"].keys() == found[1]["buffers"].keys()
    assert all(torch.equal(found[1]["buffers"][name], buffer) for name, buffer in found[0]["buffers"].items())


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["warp", "shared", "multibox"])
def test_each_process_reads_its_own_share(by_two: Path, kind: str) -> None:
    """(photographs read, windows warped) while measuring and for a batch, of all and of each process."""
    found = [torch.load(by_two / f"{kind}-lrn" / f"{rank}.pt", weights_only=True) for rank in range(2)]
    measured, learned = ([tuple(one[key]) for one in found] for key in ("measured", "learned"))
    if kind == "warp":  # a window each costs most: two batches of 8 are measured, one learned
        assert [warped for _, warped in measured] == [8, 8]
        assert [warped for _, warped in learned] == [4, 4]
        assert all(count <= 4 for count, _ in learned)
    elif kind == "shared":  # two photographs a batch
        assert measured == [(2, 0), (2, 0)]
        assert learned == [(1, 0), (1, 0)]
    else:  # three val images, four of a batch
        assert measured == [(2, 0), (1, 0)]
        assert learned == [(2, 0), (2, 0)]


@pytest.mark.parametrize("images", [2, 4])
def test_shares_of_batches_from_few_images(
    shapes: Path, cache: Path, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process reads half of the photographs, and together the shares are the batch."""
    dataset = open_dataset(data_of(shapes, "train"))
    store = dataset_proposals(dataset, BOXES, cache, 1)
    windows = collect_windows(dataset, [store.named(record.image_id).boxes for record in dataset.records])
    few = ImageSampler(windows, batch=8, images=images, foreground=4, seed=0)
    whole = WindowBatches(dataset, few, RegionConfig(64, 4), CONVENTION.mean)
    squares, labels = whole[3]
    parts = []
    read: list[str] = []
    read_image = Record.read
    monkeypatch.setattr(Record, "read", lambda self: read.append(self.image_id) or read_image(self))
    for rank in range(2):
        part = whole.part(Ranks(rank, 2).share)
        before = len(read)
        parts.append(part[3])
        assert len(read) == before + images // 2
    rows = torch.arange(8).reshape(images, -1)
    order = torch.cat([rows[rank::2].flatten() for rank in range(2)])
    assert torch.equal(torch.cat([part[0] for part in parts]), squares[order])
    assert torch.equal(torch.cat([part[1] for part in parts]), labels[order])


def test_val_features_are_of_the_share(shapes: Path) -> None:
    task, _ = multibox_task("lrn", data_of(shapes, "train"), data_of(shapes, "val"), Ranks())
    assert isinstance(task, MultiBoxTraining)
    everything = val_features(task.val, task.model, Ranks())
    for rank in range(2):
        share = val_features(task.val, task.model, Ranks(rank, 2))
        torch.testing.assert_close(share, everything[rank::2], rtol=1e-2, atol=1e-3)


# ---- whole runs by the commands


def write(folder: Path, settings: dict[str, Any]) -> Path:
    (folder / "toy.yaml").write_text(yaml.safe_dump(settings))
    return folder


def region_settings(shapes: Path, init: Path, cache: Path, **changes: Any) -> dict[str, Any]:
    data = {"kind": "voc", "root": str(shapes), "classes": SHAPES}
    settings = {
        "name": "toy", "precision": "float32", "init": str(init), "cache": str(cache), "workers": 0,
        "train": data | {"split": "train"}, "val": data | {"split": "val"},
        "proposals": {"width": 0, "min_width": 8}, "regions": {"size": 64, "context": 4},
        "linear_batches": 2, "epochs": 1, "batches_per_epoch": 2, "batch": 8, "foreground": 4, "val_batches": 1,
        "images": 2, "shared": {"pyramid": [80, 128], "region": 64, "grid": 6},
    }  # fmt: skip
    return settings | changes


def initial(folder: Path, norm: str) -> Path:
    path = folder / "initial.safetensors"
    save_checkpoint(path, ImageClassifier(narrow(norm, 2), CONVENTION, 64, ("a", "b")))
    return path


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("norm", "changes"),
    [
        ("batch", {"batch_norm_batches": 1, "regression_windows": 20}),
        ("lrn", {"mode": "shared", "ap_every": 1, "choose_by": "val_ap"}),
    ],
)
def test_a_run_on_regions(shapes: Path, tmp_path: Path, norm: str, changes: dict[str, Any]) -> None:
    """From an empty cache, which the first process fills and both read."""
    init = initial(tmp_path, norm)
    write(tmp_path, region_settings(shapes, init, tmp_path / "cache", **changes))
    command = [ROOT / "tools/train_classifier.py", "--config", "toy.yaml", "--device", "cpu"]
    done = torchrun(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done:") == 1
    assert [row["epoch"] for row in read_metrics(tmp_path / "runs/toy")] == [0, 1]
    for name in ("linear", "best", "last"):
        classifier = load_checkpoint(tmp_path / f"runs/toy/{name}.safetensors")
        assert classifier.classes.names == ("square", "disc")
    if "ap_every" in changes:  # each process has detected on some of the three images
        found = [row["val_ap"] for row in read_metrics(tmp_path / "runs/toy")]
        expected = [
            independent_ap(tmp_path / f"runs/toy/{name}.safetensors", shapes, tmp_path / "cache", "float32")
            for name in ("linear", "last")
        ]
        assert found == pytest.approx(expected, abs=1e-6)
    if norm == "batch":  # the statistics of the linear fit's network are those of windows, not of the initial weights
        before, after = load_file(init), load_file(tmp_path / "runs/toy/linear.safetensors")
        assert not torch.equal(before["trunk.conv1.norm.running_mean"], after["trunk.conv1.norm.running_mean"])


@pytest.mark.timeout(120)
def test_a_run_of_multibox(shapes: Path, tmp_path: Path) -> None:
    data = {"kind": "voc", "root": str(shapes), "classes": SHAPES}
    settings = {
        "name": "toy", "precision": "float32", "init": str(initial(tmp_path, "batch")), "workers": 0,
        "train": data | {"split": "train"}, "val": data | {"split": "val"}, "head": {"priors": 6, "hidden": 16},
        "heads": {"epochs": 1, "batch": 4}, "epochs": 1, "batch": 2, "passes": 2, "size": 64,
        "train_from": "inception_5b", "batch_norm_batches": 1,
    }  # fmt: skip
    write(tmp_path, settings)
    done = torchrun(ROOT / "tools/train_multibox.py", "--config", "toy.yaml", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for folder in ("runs/toy/head", "runs/toy"):
        assert [row["epoch"] for row in read_metrics(tmp_path / folder)] == [1]


# ---- what fails


def fail() -> None:
    """One process fails at its second batch while the other goes on: for torchrun."""
    from detector.commands.run import run
    from detector.data.ground_truth import DataError
    from detector.training.run import train

    learn = Loop.learn

    def broken(self: Loop, batch: Batch) -> float:
        if self.ranks.rank == int(sys.argv[2]) and self.step == 1:
            raise DataError("gone.png: no such file")
        return learn(self, batch)

    Loop.learn = broken  # type: ignore[method-assign]
    sys.exit(run("train_classifier", lambda: train("toy.yaml", [], device="cpu") and None, stopped="nothing"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("rank", "workers"), [(0, 0), (1, 2)])
def test_a_process_that_fails_ends_the_other(
    shapes: Path, cache: Path, tmp_path: Path, rank: int, workers: int
) -> None:
    write(tmp_path, region_settings(shapes, initial(tmp_path, "lrn"), cache, workers=workers))
    done = torchrun(__file__, "fail", rank, cwd=tmp_path)
    assert done.returncode != 0
    assert "train_classifier: gone.png: no such file" in done.stderr
    assert done.stderr.count("train_classifier: gone.png") == 1


@pytest.mark.timeout(120)
def test_proposals_that_fail_end_all(shapes: Path, tmp_path: Path) -> None:
    """The first process proposes while the others wait."""
    import shutil

    copy = tmp_path / "shapes"
    shutil.copytree(shapes, copy)
    (copy / "JPEGImages/train2.png").write_bytes(b"x")
    write(tmp_path, region_settings(copy, initial(tmp_path, "lrn"), tmp_path / "cache"))
    done = torchrun(ROOT / "tools/train_classifier.py", "--config", "toy.yaml", "--device", "cpu", cwd=tmp_path)
    assert done.returncode != 0
    assert "train2.png" in done.stderr


if __name__ == "__main__":
    fail() if sys.argv[1] == "fail" else main()
