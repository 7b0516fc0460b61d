"""What a run leaves in its folder, and which changed settings it goes on with."""

from __future__ import annotations

import json
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import PIL.Image
import pytest
import torch

from detector.config import ConfigError, save_config
from detector.data.content import boxes_digest, dataset_digest, images_digest
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.training.multibox import MultiBoxTrainingConfig
from detector.training.record import Reports, TrainingError, begin, check_folder, owned, read_metrics
from detector.training.regions import FineTuneConfig
from detector.training.run import train
from detector.training.tensorboard import TensorBoardError, check_tensorboard
from proposals.locking import Lock

SHAPES = ["square", "disc"]


def region_config(root: str = "data", **changes: Any) -> FineTuneConfig:
    train, val = (DataConfig(DatasetKind.voc, root, split, SHAPES) for split in ("train", "val"))
    return FineTuneConfig(train=train, val=val, init="x", batch=8, foreground=4, **changes)


def multibox_config(**changes: Any) -> MultiBoxTrainingConfig:
    train, val = (DataConfig(DatasetKind.voc, "data", split, SHAPES) for split in ("train", "val"))
    return MultiBoxTrainingConfig(train=train, val=val, init="x", **changes)


HEADS = multibox_config().heads


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (region_config(), region_config("elsewhere")),
        (region_config(), region_config(accumulate=2)),
        (region_config(), region_config(workers=7, cache="other", save_minutes=1.0)),
        (multibox_config(), multibox_config(heads=replace(HEADS, accumulate=4))),
    ],
)
def test_a_run_goes_on_with_what_decides_nothing(tmp_path: Path, before: object, now: object) -> None:
    assert not check_folder(tmp_path, now, resume=True)
    save_config(before, tmp_path / "config.yaml")
    (tmp_path / "state.pt").touch()
    assert check_folder(tmp_path, now, resume=True)
    with pytest.raises(TrainingError, match=str(tmp_path)):
        check_folder(tmp_path, now, resume=False)


@pytest.mark.parametrize(
    ("before", "now", "key"),
    [
        (region_config(), region_config(learning_rate=0.5), "learning_rate"),
        (region_config(), region_config(seed=3), "seed"),
        (region_config(), replace(region_config(), val=DataConfig(DatasetKind.voc, "data", "x", SHAPES)), "val.split"),
        (multibox_config(), multibox_config(heads=replace(HEADS, learning_rate=0.5)), "heads.learning_rate"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, before: object, now: object, key: str) -> None:
    save_config(before, tmp_path / "config.yaml")
    (tmp_path / "state.pt").touch()
    with pytest.raises(TrainingError, match=f"{key} = "):
        check_folder(tmp_path, now, resume=True)


def test_a_run_has_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "toy"
    with owned(folder), pytest.raises(TrainingError, match="toy"), owned(folder):
        pass
    assert list(tmp_path.iterdir()) == []  # nothing was trained
    with owned(folder):
        (folder / "state.pt").touch()
    assert [path.name for path in folder.iterdir()] == ["state.pt"]
    lock = Lock(folder / ".lock")
    with owned(folder, leads=False):  # its first process has the lock
        pass
    lock.release()


# ---- metrics


def test_rows_behind_a_torn_one_are_kept(tmp_path: Path) -> None:
    rows = [{"epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)]
    lines = [json.dumps(row) for row in rows]
    text = "\n".join([lines[0], lines[1][:9], '{"epo\0\0', "7", lines[1], lines[2], lines[2][:4]])
    (tmp_path / "metrics.jsonl").write_text(text)
    assert read_metrics(tmp_path) == rows
    reports = Reports(tmp_path, 2)  # the state holds two epochs
    assert read_metrics(tmp_path) == rows[:2]
    reports.add({"epoch": 3.0, "loss": 0.1})
    reports.close()
    assert read_metrics(tmp_path) == [*rows[:2], {"epoch": 3.0, "loss": 0.1}]


def test_a_full_disk_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = Reports(tmp_path)
    reports.add({"epoch": 1.0, "loss": 1.0})
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def full(self: Path, text: str, **_: str) -> int:
        with self.open("w") as file:
            file.write(text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        reports.add({"epoch": 2.0, "loss": 0.5})
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


class Writer:
    """Stands for TensorBoard's."""

    made: ClassVar[list[Writer]] = []

    def __init__(self, folder: str, purge_step: int | None = None) -> None:
        self.purge_step, self.rows = purge_step, []
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.rows.append((name, value, step))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.rows.append("closed")


@pytest.fixture
def tensorboard(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("torch.utils.tensorboard")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return module


def test_one_tensorboard_writer_a_run(tmp_path: Path, tensorboard: types.ModuleType) -> None:
    tensorboard.SummaryWriter = Writer  # type: ignore[attr-defined]
    Writer.made = []
    reports = Reports(tmp_path)
    for epoch in (1, 2):
        reports.add({"epoch": epoch, "loss": 0.5})
    reports.close()
    resumed = Reports(tmp_path, 1)  # killed before the state of the second was written
    resumed.add({"epoch": 2, "loss": 0.25})
    first, second = Writer.made
    assert first.rows == [("loss", 0.5, 1), ("loss", 0.5, 2), "closed"]
    assert (second.purge_step, second.rows) == (2, [("loss", 0.25, 2)])
    none = Reports(tmp_path, tensorboard="false")
    none.add({"epoch": 3, "loss": 0.5})
    assert len(Writer.made) == 2


def test_tensorboard_that_is_asked_for_and_missing_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as where the package is not installed
    monkeypatch.chdir(tmp_path)
    check_tensorboard("auto")
    check_tensorboard("false")
    Path("toy.yaml").write_text("task: images\ntrain: {root: a, split: train}\nval: {root: a, split: val}\n")
    with pytest.raises(TensorBoardError, match="tensorboard, which is not installed: pip install tensorboard"):
        train("toy.yaml", ["name=toy", "tensorboard=true"], device="cpu")
    assert not Path("runs").exists()
    with pytest.raises(ConfigError, match="tensorboard must be one of auto, true, false"):
        train("toy.yaml", ["tensorboard=maybe"], device="cpu")


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    """The package's own reader finds the rows of a resumed run in one folder, those that were trained again once."""
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    rows = [{"epoch": epoch, "train_loss": 1 / epoch, "val_ap/Zelle äß": 0.5} for epoch in (1, 2)]
    reports = Reports(tmp_path)
    for row in rows:
        reports.add(row)
    reports.close()
    resumed = Reports(tmp_path, 1)
    resumed.add({"epoch": 2, "train_loss": 0.25})
    resumed.close()
    events = reading.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in events.Scalars("loss/train")] == [(1, 1.0), (2, 0.25)]
    (name,) = (tag for tag in events.Tags()["scalars"] if tag.startswith("class_ap/Zelle"))
    assert [one.step for one in events.Scalars(name)] == [1]


@pytest.mark.parametrize("moment", ["import", "open", "add"])
def test_a_broken_tensorboard_costs_no_training(
    tmp_path: Path, tensorboard: types.ModuleType, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("Descriptors cannot be created directly")  # as protobuf says

    if moment == "import":
        tensorboard.__getattr__ = broken  # type: ignore[method-assign]
    elif moment == "open":
        tensorboard.SummaryWriter = broken  # type: ignore[attr-defined]
    else:
        tensorboard.SummaryWriter = Writer  # type: ignore[attr-defined]
        monkeypatch.setattr(Writer, "add_scalar", broken)
    reports = Reports(tmp_path)
    for epoch in (1, 2):
        reports.add({"epoch": epoch, "loss": 0.5})
    reports.close()
    assert len(read_metrics(tmp_path)) == 2


def test_a_new_run_begins_with_an_empty_record(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events").touch()
    for name in ("report.html", "best.points.json"):
        (tmp_path / name).touch()
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    begin(tmp_path, region_config(), torch.device("cpu"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "run.json"]


# ---- what the data are


def test_digests_know_contents_not_places(shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "b")
    first, second = (
        open_dataset(DataConfig(DatasetKind.voc, str(root), "val", SHAPES)) for root in (shapes, tmp_path / "b")
    )
    assert dataset_digest(first) == dataset_digest(second)
    assert (
        images_digest(["a", "b"], ["1", "2"])
        == images_digest(["b", "a"], ["2", "1"])
        != images_digest(["a", "b"], ["2", "1"])
    )
    records = first.records
    changes: list[dict[str, Any]] = [
        {"boxes": records[0].boxes + 1},
        {"labels": 1 - records[0].labels},
        {"difficult": ~records[0].difficult},
        {"image_id": "other"},
    ]
    digests = {
        boxes_digest(replace(first, records=(replace(records[0], **change), *records[1:]))) for change in changes
    }
    assert len(digests | {boxes_digest(first), boxes_digest(replace(first, records=records[::-1]))}) == len(changes) + 2


def test_a_training_goes_on_where_its_data_moved_and_not_on_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        folder = tmp_path / "a" / ("train" if number < 6 else "val") / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (70, 70), (30 * number, 9, 200)).save(folder / f"{number}.png")
    settings = ["name=toy", "task=images", "network.width=0.25", "network.auxiliary_heads=0", "size=32", "batch=3"]
    settings += ["workers=0", "precision=float32"]
    (tmp_path / "toy.yaml").write_text("task: images\ntrain: {root: a, split: train}\nval: {root: a, split: val}\n")
    train("toy.yaml", [*settings, "epochs=1"], device="cpu")
    state = torch.load("runs/toy/state.pt", weights_only=True)
    shutil.move("a", "b")
    moved = ["train.root=b", "val.root=b"]
    train("toy.yaml", [*settings, *moved, "epochs=1", "accumulate=3"], device="cpu", resume=True)
    assert torch.load("runs/toy/state.pt", weights_only=True)["step"] == state["step"]
    shutil.move("b/train/class0/0.png", "b/train/class1/0.png")
    with pytest.raises(TrainingError, match="runs/toy"):
        train("toy.yaml", [*settings, *moved, "epochs=1"], device="cpu", resume=True)
