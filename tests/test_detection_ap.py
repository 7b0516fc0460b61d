"""AP on val while training, against the saved weights in a detector and a score from the files; epochs chosen by it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_runs import runner

from detector import Detector, DetectorConfig
from detector.checkpoint import load_checkpoint
from detector.config import ConfigError
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.evaluation import Protocol, evaluate
from detector.evaluation.truth_files import read_truth
from detector.extraction import dataset_proposals
from detector.training.detection_ap import DetectionAP, detection_ap
from detector.training.loop import Loop
from detector.training.ranks import Ranks
from detector.training.record import TrainingError, read_metrics
from detector.training.regions import FineTuneConfig
from detector.training.task import Batch
from proposals.settings import ProposalConfig

Train = Callable[..., Path]
SHAPES = ["square", "disc"]
PROPOSALS = ProposalConfig(width=0, min_width=8)
SHARED = {"mode": "shared", "images": 2, "foreground": 4, "shared": {"pyramid": [80, 128], "region": 64, "grid": 6}}


@pytest.fixture(scope="module")
def settings(shapes: Path, toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = {"kind": "voc", "root": str(shapes), "classes": SHAPES}
    return {
        "name": "toy", "precision": "float32", "init": str(toy_checkpoint),
        "train": data | {"split": "train"}, "val": data | {"split": "val"},
        "proposals": {"width": 0, "min_width": 8}, "regions": {"size": 64, "context": 4}, "linear_batches": 4,
        "epochs": 2, "batches_per_epoch": 2, "batch": 8, "foreground": 3, "val_batches": 1, "workers": 0,
        "average_decay": 0.5, "cache": str(tmp_path_factory.mktemp("cache")),
    }  # fmt: skip


@pytest.fixture(scope="module")
def toy_train(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Runs the settings with some changed; without a folder the run gets one of its own."""
    return runner(settings, tmp_path_factory)


def independent_ap(
    weights: Path,
    root: Path,
    cache: Path,
    precision: str,
    skipped: tuple[str, ...] = (),
    device: torch.device | str = "cpu",
) -> float:
    """Mean AP of a weights file on val: a detector of it, and the score of the XML as written."""
    data = DataConfig(DatasetKind.voc, str(root), "val", SHAPES)
    dataset = open_dataset(data)
    store = dataset_proposals(dataset, PROPOSALS, cache, 1)
    detector = Detector([load_checkpoint(weights)], DetectorConfig(precision=precision), device)
    found = {}
    for record in dataset.records:
        if record.image_id not in skipped:
            boxes = store.get(record.image_id, record.path.read_bytes()).boxes
            found[record.image_id] = detector.score(record.path, boxes).detections()
    truth = read_truth(data)
    part = truth.part(np.array([image_id not in skipped for image_id in truth.image_ids]))
    return evaluate(part, found, "voc").mean_ap


@pytest.mark.parametrize(("mode", "precision"), [({}, "bfloat16"), (SHARED, "float32")], ids=["warp", "shared"])
def test_it_is_the_ap_of_the_saved_weights(
    toy_train: Train, settings: dict[str, Any], shapes: Path, tmp_path: Path, mode: dict[str, Any], precision: str
) -> None:
    folder = toy_train(ap_every=1, choose_by="val_ap", precision=precision, **mode)
    found = [row["val_ap"] for row in read_metrics(folder)]
    assert len(found) == 3
    for name, value in (("linear", found[0]), ("last", found[2]), ("best", max(found))):
        expected = independent_ap(folder / f"{name}.safetensors", shapes, tmp_path, precision)
        assert value == pytest.approx(expected, abs=1e-6)
    assert max(found) > 0
    assert len({*found}) > 1
    best = json.loads((folder / "run.json").read_text())["best"]
    assert best == f"epoch {found.index(max(found))}, chosen by val_ap ({max(found):.5g})"


def test_it_changes_no_weight(toy_train: Train) -> None:
    with_ap, without = toy_train(ap_every=1), toy_train()
    for name in ("linear", "best", "last"):
        first, second = (load_file(folder / f"{name}.safetensors") for folder in (with_ap, without))
        assert all(torch.equal(second[key], tensor) for key, tensor in first.items())
    assert not any("val_ap" in row for row in read_metrics(without))


def test_the_epoch_is_chosen_by_it_and_a_resumed_run_knows_the_best(
    toy_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Interrupted after the best epoch, in one that has no measurement; patience counts on from there."""
    caplog.set_level("INFO")
    changes: dict[str, Any] = {"ap_every": 2, "choose_by": "val_ap", "epochs": 9, "batches_per_epoch": 1, "patience": 2}
    values = {0: 0.1, 2: 0.7, 4: 0.3, 6: 0.6, 8: 0.9}
    remaining = list(values.values())
    monkeypatch.setattr(DetectionAP, "measure", lambda *_: {"val_ap": remaining.pop(0)})
    learn = Loop.learn

    def stopped(self: Loop, batch: Batch) -> float:
        if self.step == 4:
            raise KeyboardInterrupt
        return learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "learn", stopped)
        with pytest.raises(KeyboardInterrupt):
            toy_train(tmp_path, **changes)
    kept = load_file(tmp_path / "runs/toy/best.safetensors")
    folder = toy_train(tmp_path, resume=True, **changes)
    rows = read_metrics(folder)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    assert {int(row["epoch"]): row["val_ap"] for row in rows if "val_ap" in row} == {0: 0.1, 2: 0.7, 4: 0.3, 6: 0.6}
    assert all(torch.equal(tensor, kept[name]) for name, tensor in load_file(folder / "best.safetensors").items())
    stopped_at = next(place for place, line in enumerate(caplog.messages) if line.startswith("stopped after"))
    assert caplog.messages[stopped_at : stopped_at + 2] == [
        "stopped after epoch 6 of 9: val_ap was no better than in epoch 2 in 2 measurements in a row (patience=2)",
        "runs/toy/best.safetensors: epoch 2, chosen by val_ap (0.7)",
    ]


def test_some_images_are_drawn_once(
    toy_train: Train, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []
    measure = DetectionAP.measure

    def noted(self: DetectionAP, network: nn.Module) -> dict[str, float]:
        drawn.append([record.image_id for record in self.dataset.records])
        return measure(self, network)

    monkeypatch.setattr(DetectionAP, "measure", noted)
    first = toy_train(ap_every=1, ap_images=2, epochs=1)
    toy_train(ap_every=1, ap_images=2, epochs=1, seed=7)
    toy_train(ap_every=1, ap_images=99, epochs=1)
    assert [len(names) for names in drawn] == [2] * 4 + [3] * 2
    assert all(names == drawn[0] for names in drawn[:4])
    (skipped,) = set(drawn[4]) - set(drawn[0])
    expected = independent_ap(first / "last.safetensors", shapes, tmp_path, "float32", (skipped,))
    assert read_metrics(first)[1]["val_ap"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        (DatasetKind.ilsvrc, Protocol.ilsvrc),
        (DatasetKind.voc, Protocol.voc),
        (DatasetKind.coco, Protocol.voc),  # as eval_map without --protocol
    ],
)
def test_rules_and_images(shapes: Path, toy_checkpoint: Path, kind: DatasetKind, protocol: Protocol) -> None:
    """An image in which not every object is boxed takes no part: what is found there may be right."""
    data = DataConfig(DatasetKind.voc, str(shapes), "val", SHAPES)
    dataset = open_dataset(data)
    first, second, third = dataset.records
    dataset = replace(dataset, records=(first, replace(second, exhaustive=False), third))
    boxes = [np.full((1, 4), number, np.float32) for number in range(3)]
    classifier, ranks = load_checkpoint(toy_checkpoint), Ranks(device=torch.device("cuda"))
    config = FineTuneConfig(train=data, val=replace(data, kind=kind), init="", ap_every=3, precision="float16")
    measure = detection_ap(config, classifier, dataset, boxes, ranks)
    assert measure.protocol is protocol
    assert measure.dataset.records == (first, third)
    assert [int(one[0, 0]) for one in measure.boxes] == [0, 2]
    assert measure.precision == "float32"  # detectors have no float16
    assert [epoch for epoch in range(11) if measure.due(epoch)] == [0, 3, 6, 9, 10]
    never = detection_ap(replace(config, ap_every=0), classifier, dataset, boxes, ranks)
    assert not any(never.due(epoch) for epoch in range(11))


# ---- refusals


def test_images_without_objects(toy_train: Train, settings: dict[str, Any], shapes: Path, tmp_path: Path) -> None:
    """One of three has objects, each in turn, and one is drawn."""
    bare = "<annotation><size><width>96</width><height>80</height></size></annotation>"
    messages = []
    for annotated in range(3):
        root = tmp_path / str(annotated)
        shutil.copytree(shapes, root)
        for number in {0, 1, 2} - {annotated}:
            (root / f"Annotations/val{number}.xml").write_text(bare)
        try:
            toy_train(val=settings["val"] | {"root": str(root)}, ap_every=1, ap_images=1, train_from="none")
        except TrainingError as error:
            messages.append(str(error))
    assert len(messages) == 2
    for message in messages:
        assert message.endswith("val, on which AP is measured, have no object: raise ap_images")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choose_by": "val_ap"}, "choose_by=val_ap needs ap_every, the epochs between two measurements of AP; try 1"),
        ({"choose_by": "map", "ap_every": 1}, "choose_by must be one of val_loss, val_ap, not 'map'"),
        ({"ap_every": -1}, "ap_every must be at least 0, not -1"),
        ({"ap_images": -1}, "ap_images must be at least 0, not -1"),
    ],
)
def test_refused_before_anything_is_computed(
    toy_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("detector.training.run.dataset_proposals", lambda *_: pytest.fail("proposals were computed"))
    with pytest.raises(ConfigError, match=message):
        toy_train(tmp_path, **changes)
