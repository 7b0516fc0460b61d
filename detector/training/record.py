"""What a run leaves in runs/<name>/ beside its weights.

config.yaml     every setting, reloadable with --config
run.json        command, commit, versions, device
metrics.jsonl   a row an epoch
curves.png      the same, drawn
tensorboard/    the same, where TensorBoard is installed
"""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import torch

from detector.config import load_config, save_config
from proposals.errors import UserError

T = TypeVar("T")
WRITTEN = ("config.yaml", "metrics.jsonl", "curves.png", "best.safetensors", "last.safetensors", "linear.safetensors")
FREE = ("workers", "cache", "save_minutes", "members")  # settings that change how a run is computed, not what comes out


class TrainingError(UserError):
    """Training cannot go on; one line with the reason and the next step."""


def check_folder(folder: Path, config: object, *, resume: bool) -> bool:
    """Whether the folder holds a run of these settings to resume.

    Raises:
        TrainingError: it holds one, and it is not to be resumed, or was made with other settings; or it holds what no
            training wrote.
    """
    if not (folder / "state.pt").is_file():
        foreign = [name for name in WRITTEN if (folder / name).exists()]
        if foreign and not (folder / "run.json").is_file():
            raise TrainingError(
                f"{folder}/{foreign[0]} is of no training; name=OTHER starts a run in a folder of its own"
            )
        return False
    if not resume:
        raise TrainingError(f"{folder} has a run already; --resume auto continues it, name=OTHER starts another")
    before = load_config(type(config), folder / "config.yaml")
    for item in fields(type(config)):  # type: ignore[arg-type]
        old, new = getattr(before, item.name), getattr(config, item.name)
        if old != new and item.name not in FREE:
            raise TrainingError(
                f"{folder} was trained with {item.name} = {old}, not {new}; name=OTHER starts another run"
            )
    return True


def begin(folder: Path, config: object, device: torch.device) -> None:
    """Make the folder of a new run, with its settings and its circumstances."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    save_config(config, folder / "config.yaml")
    (folder / "run.json").write_text(json.dumps(describe_run(device), indent=1) + "\n", encoding="utf-8")


def describe_run(device: torch.device) -> dict[str, str]:
    """What a reader needs to repeat a run: command, commit, versions, device."""
    try:
        git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return {
        "command": shlex.join(["python", *sys.argv]),
        "commit": commit,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device} ({name})",
    }


def report(folder: Path, row: dict[str, float]) -> None:
    """Add a row of metrics to the run's files and print it."""
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print("  ".join(f"{key} {value:.5g}" for key, value in row.items()), flush=True)
    draw_curves(read_metrics(folder), folder / "curves.png")
    _to_tensorboard(folder, row)


def forget_after(folder: Path, epoch: int) -> None:
    """Drop the rows of epochs that the saved state does not hold: they will be made again."""
    path = folder / "metrics.jsonl"
    if path.is_file():
        rows = [row for row in read_metrics(folder) if row["epoch"] <= epoch]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.jsonl; a line cut by a kill, which can only be the last, counts as none."""
    rows = []
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def draw_curves(rows: list[dict[str, float]], path: Path) -> None:
    """Every column over the epochs: losses in one panel, the val columns in another, the learning rate in a third."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = dict.fromkeys(name for row in rows for name in row)
    panels = [
        [name for name in names if name.endswith("loss")],
        [name for name in names if name.startswith("val_") and not name.endswith("loss")],
        [name for name in names if name == "learning_rate"],
    ]
    panels = [panel for panel in panels if panel]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.5 * len(panels), 3.2), squeeze=False, layout="tight")
    for axis, panel in zip(axes[0], panels, strict=True):
        for name in panel:
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            axis.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None, label=name)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _to_tensorboard(folder: Path, row: dict[str, float]) -> None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar(name, value, int(row["epoch"]))
