"""The training loop with a toy task: seconds of an epoch, early stopping, and float16 with scaled gradients."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from detector.device import DeviceError
from detector.training.loop import Loop, carry_on
from detector.training.optimisation import TrainingConfig
from detector.training.record import TrainingError, read_metrics
from detector.training.scaling import MOST_IN_A_ROW
from detector.training.task import Batch

SECONDS = ("data_seconds", "compute_seconds", "measure_seconds")


class Toy:
    """A `Task`: random squares of three classes, told apart by their mean; waits where a test wants it to."""

    criterion = "val_loss"
    unit = "images"
    batches_per_epoch = 4

    def __init__(self, values: list[float] | None = None, *, waits: tuple[float, float, float] = (0, 0, 0)) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
        )
        self.values, self.waits = values, waits
        self.seen: list[torch.dtype] = []
        self.broken: set[int] = set()  # batches whose loss is not finite

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        for number in range(start, stop):
            time.sleep(self.waits[0])
            labels = torch.arange(4) % 3
            noise = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(number))
            yield noise + labels.reshape(4, 1, 1, 1), labels, torch.full((4,), number)

    def inputs(self, batch: Batch) -> Tensor:
        return batch[0]

    def loss(self, batch: Batch) -> Tensor:
        time.sleep(self.waits[1])
        logits = self.network(batch[0])
        self.seen.append(logits.dtype)
        loss = F.cross_entropy(logits.float(), batch[1])
        return loss * math.nan if int(batch[2][0]) in self.broken else loss

    def measure(self, network: nn.Module) -> dict[str, float]:
        time.sleep(self.waits[2])
        return {"val_loss": self.values.pop(0) if self.values else 1.0}

    def save(self, network: nn.Module, path: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)

    def contents(self, step: int) -> list[str]:
        return [f"batch{step}.png"]


def config(**changes: Any) -> TrainingConfig:
    settings = {"epochs": 2, "batch": 4, "learning_rate": 0.05, "precision": "float32"}
    return TrainingConfig(**settings | changes)  # type: ignore[arg-type]


def trained(folder: Path, task: Toy, *, resuming: bool = False, **changes: Any) -> Loop:
    loop = Loop(task, config(**changes), folder)
    carry_on(loop, loop.config, resuming=resuming)
    return loop


# ---- seconds


def test_the_seconds_of_an_epoch_are_those_of_its_parts(tmp_path: Path) -> None:
    (row,) = Loop(Toy(waits=(0.03, 0.05, 0.2)), config(epochs=1), tmp_path).run()
    data, compute, measure = (row[name] for name in SECONDS)
    assert 4 * 0.03 <= data < 4 * 0.05
    assert 4 * 0.05 <= compute < row["seconds"] - 0.32
    assert 0.2 <= measure < row["seconds"] - 0.32
    assert data + compute + measure == pytest.approx(row["seconds"], rel=0.1)


# ---- early stopping


def test_patience_ends_a_run_and_a_resumed_one_stays_finished(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    values = [0.5, 0.3, 0.4, 0.35, 0.3, 0.1]
    whole = trained(tmp_path / "whole", Toy([*values]), epochs=9, patience=3)
    assert [row["epoch"] for row in read_metrics(tmp_path / "whole")] == [1, 2, 3, 4, 5]
    assert (whole.best.epoch, whole.best.value) == (2, 0.3)
    stopped = (
        "stopped after epoch 5 of 9: val_loss was no better than in epoch 2 in 3 measurements in a row (patience=3)"
    )
    best = f"{tmp_path}/whole/best.safetensors: epoch 2, chosen by val_loss (0.3)"
    assert caplog.messages[-2:] == [stopped, best]
    assert json.loads((tmp_path / "whole/run.json").read_text())["best"] == "epoch 2, chosen by val_loss (0.3)"

    state = (tmp_path / "whole/state.pt").read_bytes()
    again = trained(tmp_path / "whole", Toy([0.0]), resuming=True, epochs=9, patience=3)
    assert again.finished_epochs == 5
    assert (tmp_path / "whole/state.pt").read_bytes() == state
    assert caplog.messages[-2:] == [stopped, best]

    with monkeypatch.context() as patch:  # interrupted after two of the three
        learn = Loop.learn

        def interrupted(self: Loop, batch: Batch) -> float:
            if self.step == 17:
                raise KeyboardInterrupt
            return learn(self, batch)

        patch.setattr(Loop, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "parts", Toy(values[:4]), epochs=9, patience=3)
    resumed = trained(tmp_path / "parts", Toy(values[4:]), resuming=True, epochs=9, patience=3)
    assert (resumed.finished_epochs, resumed.best) == (5, whole.best)
    for name in ("best", "last"):
        first, second = (load_file(tmp_path / part / f"{name}.safetensors") for part in ("whole", "parts"))
        assert all(torch.equal(second[key], tensor) for key, tensor in first.items())


def test_without_patience_a_run_goes_to_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    trained(tmp_path, Toy([0.1, 0.2, 0.3, 0.4, 0.5]), epochs=5)
    assert len(read_metrics(tmp_path)) == 5
    assert not [line for line in caplog.messages if line.startswith("stopped")]


def test_a_state_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    loop = trained(tmp_path, Toy())
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    del state["best_epoch"]
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match=r"state\.pt was written by an earlier version; name=OTHER"):
        loop.load_state()


# ---- the epoch that is kept


class Rare:
    """An `Occasional` of AP every second epoch and in the last, with values by the epoch."""

    def __init__(self, values: dict[int, float], epochs: int) -> None:
        self.values, self.epochs = values, epochs
        self.measured: list[Tensor] = []

    def due(self, epoch: int) -> bool:
        self.epoch = epoch
        return epoch % 2 == 0 or epoch == self.epochs

    def measure(self, network: nn.Module) -> dict[str, float]:
        self.measured.append(flat(network))
        return {"val_ap": self.values[self.epoch]}


@pytest.mark.parametrize("criterion", ["val_ap", "val_loss"])
@pytest.mark.parametrize(
    ("values", "best"),
    [
        ({0: 0.1, 2: 0.5, 4: 0.3, 5: 0.4}, 2),
        ({0: 0.6, 2: 0.5, 4: 0.3, 5: 0.4}, 0),
        ({0: 0.1, 2: 0.3, 4: 0.3, 5: 0.4}, 5),  # the last, which is no multiple of 2
        ({0: 0.1, 2: 0.3, 4: 0.3, 5: 0.2}, 2),  # of equal ones the first
    ],
)
def test_it_is_chosen_by_the_column_that_is_named(
    tmp_path: Path, values: dict[int, float], best: int, criterion: str
) -> None:
    losses = [0.6, 0.5, 0.4, 0.1, 0.3, 0.2]  # epoch 3 has no AP
    task, rare = Toy([*losses]), Rare(values, 5)
    task.criterion = criterion
    loop = Loop(task, config(epochs=5), tmp_path, occasional=rare)
    loop.finish_epoch()
    rows = list(loop.run())
    assert [row["val_loss"] for row in rows] == losses[1:]
    assert {row["epoch"]: row["val_ap"] for row in rows if "val_ap" in row} == {k: values[k] for k in (2, 4, 5)}
    assert loop.best.epoch == (best if criterion == "val_ap" else 3)
    if criterion == "val_ap":
        kept = {name: tensor.flatten() for name, tensor in load_file(tmp_path / "best.safetensors").items()}
        expected = rare.measured[list(values).index(best)]
        assert torch.equal(torch.cat([kept[name] for name, _ in task.network.named_parameters()]), expected)


# ---- float16


@pytest.fixture
def float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop trains in float16 here, as it does on a GPU without bfloat16."""
    monkeypatch.setattr("detector.training.loop.training_precision", lambda *_: torch.float16)


def flat(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def with_scale(loop: Loop, scale: float) -> None:
    loop.scaled.load_state_dict(loop.scaled.state_dict() | {"scale": scale})


def test_a_cpu_trains_in_no_float16(tmp_path: Path) -> None:
    with pytest.raises(
        DeviceError, match=r"^precision=float16 trains on CUDA devices, not on cpu; set precision=auto$"
    ):
        Loop(Toy(), config(precision="float16"), tmp_path)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_float16_goes_where_float32_goes(tmp_path: Path, accumulate: int, request: pytest.FixtureRequest) -> None:
    """Eight steps with momentum; without the scale's division they would be 2^16 times as long."""
    full = Toy()
    start = flat(full.network)
    rows = list(Loop(full, config(accumulate=accumulate), tmp_path).run())
    request.getfixturevalue("float16")
    half = Toy()
    loop = Loop(half, config(accumulate=accumulate), tmp_path)
    found = list(loop.run())
    assert set(half.seen) == {torch.float16}
    assert loop.scaled.scale == 2**16
    moved, expected = flat(half.network) - start, flat(full.network) - start
    assert 0 < (moved - expected).norm() < 0.02 * expected.norm()
    assert [row["train_loss"] for row in found] == pytest.approx([row["train_loss"] for row in rows], rel=1e-3)
    assert [row["skipped_steps"] for row in found] == [0, 0]
    assert "skipped_steps" not in rows[0]
    assert {tensor.dtype for tensor in half.network.state_dict().values()} == {torch.float32}


@pytest.mark.usefixtures("float16")
def test_an_overflow_skips_the_step_and_halves_the_scale(tmp_path: Path) -> None:
    task = Toy()
    loop = Loop(task, config(), tmp_path)
    with_scale(loop, 2.0**40)
    before = flat(task.network)
    loss = loop.learn(next(task.batches(0, 1)))
    assert math.isfinite(loss)
    assert torch.equal(flat(task.network), before)
    assert int(loop.average.n_averaged) == 0
    assert not loop.optimiser.state
    assert (loop.step, loop.scaled.skipped, loop.scaled.scale) == (1, 1, 2.0**39)
    with_scale(loop, 2.0**10)
    loop.learn(next(task.batches(1, 2)))
    assert not torch.equal(flat(task.network), before)
    assert (loop.scaled.skipped, loop.scaled.scale, loop.scaled.in_a_row) == (1, 2.0**10, 0)
    assert int(loop.average.n_averaged) == 1


@pytest.mark.usefixtures("float16")
def test_a_batch_whose_loss_is_not_finite_is_skipped_and_counted(tmp_path: Path) -> None:
    task = Toy()
    task.broken = {1, 2, 6}
    rows = list(Loop(task, config(epochs=3), tmp_path).run())
    assert [row["skipped_steps"] for row in rows] == [2, 1, 0]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert torch.isfinite(flat(task.network)).all()


@pytest.mark.usefixtures("float16")
def test_a_run_that_diverges_in_float16_stops_with_its_reason(tmp_path: Path) -> None:
    task = Toy()
    task.broken = set(range(3, 1000))
    with pytest.raises(TrainingError) as caught:
        list(Loop(task, config(epochs=100), tmp_path).run())
    last = 3 + MOST_IN_A_ROW - 1
    assert str(caught.value).startswith(
        f"float16 overflows in {MOST_IN_A_ROW} batches in a row (try precision=float32), last in epoch"
    )
    assert f"in epoch {last // 4 + 1} at batch {last} of {tmp_path}: lower learning_rate" in str(caught.value)
    assert f"batch{last}.png" in str(caught.value)
    assert torch.isfinite(flat(task.network)).all()


@pytest.mark.usefixtures("float16")
def test_a_resumed_run_keeps_scale_and_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scales of 2^21 overflow a few times first; interrupted among these, and it ends with the bits of a whole run."""

    def begun(folder: Path) -> tuple[Toy, Loop]:
        task = Toy()
        loop = Loop(task, config(), folder)
        with_scale(loop, 2.0**21)
        return task, loop

    whole, loop = begun(tmp_path / "whole")
    (tmp_path / "whole").mkdir()
    expected = list(loop.run())
    assert expected[0]["skipped_steps"] > 0

    (tmp_path / "parts").mkdir()
    _, first = begun(tmp_path / "parts")
    for batch in Toy().batches(0, 1):
        first.losses.append(first.learn(batch))
    first.save_state()
    second = Toy()
    resumed = Loop(second, config(), tmp_path / "parts")
    resumed.load_state()
    rows = list(resumed.run())
    assert [row["skipped_steps"] for row in rows] == [row["skipped_steps"] for row in expected]
    assert resumed.scaled.scale == loop.scaled.scale
    assert torch.equal(flat(second.network), flat(whole.network))


@pytest.mark.usefixtures("float16")
def test_a_state_of_float32_goes_on_in_float16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """precision=auto may mean another one on the machine to which a run was moved."""
    with monkeypatch.context() as patch:
        patch.setattr("detector.training.loop.training_precision", lambda *_: torch.float32)
        trained(tmp_path, Toy(), epochs=1)
    loop = Loop(Toy(), config(), tmp_path)
    loop.load_state()
    assert loop.scaled.scale == 2**16
    assert len(list(loop.run())) == 1
