"""The record of a run, beside its weights in runs/<name>/.

config.yaml     all settings; reload with --config
run.json        command, commit, versions, device; the epoch of best.safetensors, and by what it was chosen
metrics.jsonl   one row per epoch
curves.png      plots of the rows
tensorboard/    the rows for TensorBoard, if it is installed
"""

from __future__ import annotations

import json
import logging
import math
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from detector.config import config_to_dict, load_config, save_config
from detector.model_files import read_metrics
from proposals.errors import UserError
from proposals.files import write_whole
from proposals.locking import InUseError, Lock

FREE = ("workers", "cache", "save_minutes", "members", "accumulate")
"""Settings that do not change the result; they may differ when a run is resumed."""
PLACES = ("root", "annotations", "images")
"""Locations of data; their contents are compared when the state is loaded."""
WEIGHTS = ("best.safetensors", "last.safetensors", "linear.safetensors", "refit.safetensors")
WRITTEN = ("config.yaml", "metrics.jsonl", "curves.png", *WEIGHTS)

_LOG = logging.getLogger(__name__)


class TrainingError(UserError):
    """A training that cannot continue; one line with the reason and the next step."""


@contextmanager
def owned(folder: Path, *, leads: bool = True) -> Iterator[None]:
    """Lock the folder of a run while it is trained; a folder that stays empty is removed again.

    Args:
        folder: Folder of the run; created if missing.
        leads: Whether this process is the one that writes.

    Raises:
        TrainingError: another process is training a run of that name.
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
    """Check whether the folder holds a run of these settings to resume.

    Raises:
        TrainingError: it holds a run that is not to be resumed or has other settings, or files that no training wrote.
    """
    if not (folder / "state.pt").is_file():
        foreign = [name for name in WRITTEN if (folder / name).exists()]
        if foreign and not (folder / "run.json").is_file():
            raise TrainingError(
                f"{folder}/{foreign[0]} was not written by a training; name=OTHER starts a run in a folder of its own"
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
    """The settings that decide the result, by dotted key."""
    settings: dict[str, Any] = config_to_dict(config)
    for section, names in ("train", PLACES), ("val", PLACES), ("heads", FREE):
        part = settings.get(section, {})
        sections = part if isinstance(part, list) else [part]  # a list of data sets
        kept = [{key: value for key, value in one.items() if key not in names} for one in sections]
        settings[section] = kept[0] if part is not sections else {str(place): one for place, one in enumerate(kept)}
    return {key: value for key, value in _flat(settings, "") if key not in FREE}


def _flat(section: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def begin(folder: Path, config: object, device: torch.device) -> None:
    """Make the folder of a new run, and write its settings, command, commit, versions and device."""
    folder.mkdir(parents=True, exist_ok=True)
    with write_whole(folder / "run.json") as path:  # first: check_folder recognises our folders by it
        path.write_text(json.dumps(describe_run(device), indent=1) + "\n", encoding="utf-8")
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    save_config(config, folder / "config.yaml")


def describe_run(device: torch.device) -> dict[str, str]:
    """Describe how a run was started: command, commit, versions, device."""
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
    """Writes and prints the metrics of a run.

    Args:
        folder: Folder of the run.
        epoch: Last epoch of the saved state; rows of later epochs are dropped, since those will be trained again.
    """

    def __init__(self, folder: Path, epoch: float = math.inf) -> None:
        self.folder = folder
        self._rows = [row for row in read_metrics(folder) if row["epoch"] <= epoch]
        self._writer: Any = None
        self._write()

    def add(self, row: dict[str, float], best: str = "") -> None:
        """Add the row of an epoch: write, log and plot it.

        Args:
            row: The metrics.
            best: Which epoch is the best so far, and by what; written into run.json and above the plots.
        """
        self._rows.append(row)
        self._write()
        _LOG.info("%s", "  ".join(f"{key} {value:.5g}" for key, value in row.items()))
        if best:
            self._note_best(best)
        draw_curves(self._rows, self.folder / "curves.png", best)
        self._to_tensorboard(row)

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._writer:
            self._writer.close()

    def _note_best(self, best: str) -> None:
        known = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        with write_whole(self.folder / "run.json") as path:
            path.write_text(json.dumps(known | {"best": best}, indent=1) + "\n", encoding="utf-8")

    def _write(self) -> None:
        with write_whole(self.folder / "metrics.jsonl") as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in self._rows), encoding="utf-8")

    def _to_tensorboard(self, row: dict[str, float]) -> None:
        if self._writer is False:
            return
        try:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                # Steps from purge_step on belong to epochs that are trained again.
                self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=int(row["epoch"]))
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(name, value, int(row["epoch"]))
            self._writer.flush()
        except ImportError:  # not installed
            self._writer = False
        except Exception as error:  # a plot is no reason to end a training
            _LOG.warning("no TensorBoard (%s)", error)
            self._writer = False


def draw_curves(rows: list[dict[str, float]], path: Path, title: str = "") -> None:
    """Plot all columns over the epochs: losses, other val columns, and the learning rate in a panel each."""
    from matplotlib.figure import Figure  # slow to import; without pyplot no display is looked for

    names = dict.fromkeys(name for row in rows for name in row)
    panels = [
        [name for name in names if name.endswith("loss")],
        [name for name in names if name.startswith("val_") and not name.endswith("loss")],
        [name for name in names if name == "learning_rate"],
    ]
    panels = [panel for panel in panels if panel]
    figure = Figure(figsize=(4.5 * len(panels), 3.2), layout="tight")
    figure.suptitle(title, fontsize=9)
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in panel:
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            axis.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None, label=name)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    with write_whole(path) as temporary:
        figure.savefig(temporary, dpi=100)
