"""What a run leaves in runs/<name>/ beside its weights.

config.yaml     every setting, reloadable with --config
run.json        command, commit, versions, device
metrics.jsonl   a row an epoch
curves.png      the same, drawn
tensorboard/    the same, where TensorBoard is installed
"""

from __future__ import annotations

import json
import math
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from detector.config import config_to_dict, load_config, save_config
from proposals.errors import UserError
from proposals.files import write_whole
from proposals.locking import InUseError, Lock

FREE = ("workers", "cache", "save_minutes", "members", "accumulate")
"""Settings that change how a run is computed, not what comes out."""
PLACES = ("root", "annotations", "images")
"""Where data lie; what they hold is compared when the state is loaded."""
WRITTEN = ("config.yaml", "metrics.jsonl", "curves.png", "best.safetensors", "last.safetensors", "linear.safetensors")


class TrainingError(UserError):
    """Training cannot go on; one line with the reason and the next step."""


@contextmanager
def owned(folder: Path, *, leads: bool = True) -> Iterator[None]:
    """Keep other processes from the folder of a run while it is trained; a folder that stays empty is removed again.

    Args:
        folder: made where there is none.
        leads: whether this process is the one of several that writes.

    Raises:
        TrainingError: another run of that name is under way.
    """
    if not leads:
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = Lock(folder / ".lock")
    except InUseError as error:
        raise TrainingError(f"{folder} is being trained by another process; name=OTHER starts another run") from error
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # not empty
            for path in made:
                path.rmdir()


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
    before, now = (_decisive(one) for one in (load_config(type(config), folder / "config.yaml"), config))
    for name in {**before, **now}:
        old, new = before.get(name, "not set"), now.get(name, "not set")
        if old != new:
            raise TrainingError(f"{folder} was trained with {name} = {old}, not {new}; name=OTHER starts another run")
    return True


def _decisive(config: object) -> dict[str, object]:
    """The settings that decide what comes out, by dotted key."""
    found: dict[str, object] = {}

    def add(section: Mapping[str, object], prefix: str, left_out: Sequence[str]) -> None:
        for key, value in section.items():
            if key in left_out:
                continue
            if isinstance(value, Mapping):
                add(value, f"{prefix}{key}.", PLACES if key in ("train", "val") else FREE if key == "heads" else ())
            else:
                found[prefix + key] = value

    add(config_to_dict(config), "", FREE)
    return found


def begin(folder: Path, config: object, device: torch.device) -> None:
    """Make the folder of a new run, with its settings and its circumstances."""
    folder.mkdir(parents=True, exist_ok=True)
    with write_whole(folder / "run.json") as path:  # first: by it check_folder knows a folder of ours
        path.write_text(json.dumps(describe_run(device), indent=1) + "\n", encoding="utf-8")
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    save_config(config, folder / "config.yaml")


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


class Reports:
    """The rows of metrics of a run, in its files and printed.

    Args:
        folder: of the run.
        epoch: rows of later epochs are dropped: the saved state does not hold them, and they will be made again.
    """

    def __init__(self, folder: Path, epoch: float = math.inf) -> None:
        self.folder = folder
        self._rows = [row for row in read_metrics(folder) if row["epoch"] <= epoch]
        self._writer: Any = None
        self._write()

    def add(self, row: dict[str, float]) -> None:
        """Add a row."""
        self._rows.append(row)
        self._write()
        print("  ".join(f"{key} {value:.5g}" for key, value in row.items()), flush=True)
        draw_curves(self._rows, self.folder / "curves.png")
        self._to_tensorboard(row)

    def close(self) -> None:
        """Let go of TensorBoard's file."""
        if self._writer:
            self._writer.close()

    def _write(self) -> None:
        with write_whole(self.folder / "metrics.jsonl") as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in self._rows), encoding="utf-8")

    def _to_tensorboard(self, row: dict[str, float]) -> None:
        if self._writer is False:
            return
        try:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                # What lies behind the step is of epochs that are made again.
                self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=int(row["epoch"]))
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(name, value, int(row["epoch"]))
            self._writer.flush()
        except ImportError:  # it is not installed
            self._writer = False
        except Exception as error:  # a picture of the training is no reason to end it
            print(f"warning: no TensorBoard ({error})", file=sys.stderr)
            self._writer = False


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.jsonl; a line that a kill or a full disk has torn counts as none."""
    path, rows = folder / "metrics.jsonl", []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "epoch" in row:
            rows.append(row)
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
    with write_whole(path) as temporary:
        figure.savefig(temporary, dpi=100)
    pyplot.close(figure)
