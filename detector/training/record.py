"""The record of a run, beside its weights in runs/<name>/.

config.yaml     all settings; reload with --config
run.json        command, commit, versions, device; the epoch of best.safetensors, and by what it was chosen
metrics.jsonl   one row per epoch
report.html     the run as a page, rewritten after each epoch
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
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from detector.config import config_to_dict, load_config, save_config
from detector.model_files import read_metrics
from detector.report.rendering import without_folders
from detector.report.training_page import Outcome, Progress, Training, write_training_page
from detector.training.best_epoch import BestEpoch
from detector.training.epoch_lines import EpochLines
from detector.training.tensorboard import TensorBoard
from proposals.errors import UserError
from proposals.files import write_whole
from proposals.locking import InUseError, Lock

PAGE = "report.html"
FREE = ("workers", "cache", "save_minutes", "members", "accumulate", "tensorboard", "operating_points")
"""Settings that do not change the result; they may differ when a run is resumed."""
PLACES = ("root", "annotations", "images", "image_list")
"""Locations of data; their contents are compared when the state is loaded."""
WEIGHTS = ("best.safetensors", "last.safetensors", "linear.safetensors", "refit.safetensors")
OUTCOME = (PAGE, "best.points.json", "detector.yaml", "evaluation.yaml")
"""What the end of a run writes or completes."""
WRITTEN = ("config.yaml", "metrics.jsonl", *OUTCOME, *WEIGHTS)

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
    for name in ("metrics.jsonl", *OUTCOME):
        (folder / name).unlink(missing_ok=True)
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
    """Writes, prints and draws the metrics of a run.

    Args:
        folder: Folder of the run.
        epoch: Last epoch of the saved state; rows of later epochs are dropped, since those will be trained again.
        training: What is trained; None writes no page.
        tensorboard: "auto", "true" or "false", see `TensorBoard`.
    """

    def __init__(
        self,
        folder: Path,
        epoch: float = math.inf,
        training: Training | None = None,
        tensorboard: str = "auto",
    ) -> None:
        self.folder, self.training = folder, training
        self.rows = [row for row in read_metrics(folder) if row["epoch"] <= epoch]
        self._lines = EpochLines(training.epochs if training else 0)
        self._tensorboard = TensorBoard(folder / "tensorboard", tensorboard)
        self._best: BestEpoch | None = None
        self._write()

    def add(self, row: dict[str, float], best: BestEpoch | None = None) -> None:
        """Add the row of an epoch: write, log and plot it.

        Args:
            row: The metrics.
            best: Which epoch is the best so far, and by what; written into run.json and the page.
        """
        if self.training and best and self._best is None:
            _LOG.info("watch %s; * = best so far, by %s", self.folder / PAGE, best.column)
        self.rows.append(row)
        self._best = best
        self._write()
        for line in self._lines.lines(self.rows, best=best is not None and best.epoch == row["epoch"]):
            _LOG.info("%s", line)
        if best:
            self._note(best=str(best))
        self.write_page("running")
        self._tensorboard.add(row)

    def write_page(
        self,
        state: str,
        note: str = "",
        *,
        best: BestEpoch | None = None,
        outcome: Outcome | None = None,
        commands: Mapping[str, str] | None = None,
    ) -> None:
        """Write report.html; a page that cannot be drawn is logged and ends no training.

        Args:
            state: "running", "stopped" or "finished".
            note: A sentence on the state.
            best: The best epoch; None for that of the last row.
            outcome: What the finished detector does on val.
            commands: What to do next.
        """
        best = best or self._best
        if self.training is None:
            return
        known = best is not None and best.value is not None
        progress = Progress(
            rows=self.rows,
            criterion=best.column if best else "",
            best=best.epoch if best and known else None,
            state=state,
            note=note,
            run=self._run(),
            commands={text: without_machine(words) for text, words in (commands or {}).items() if text != "done"},
        )
        try:
            write_training_page(self.folder / PAGE, self.training, progress, outcome)
        except OSError:
            raise
        except Exception as error:
            _LOG.warning("no page %s (%s: %s)", self.folder / PAGE, type(error).__name__, error)

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end before, so that its page is complete."""
        return "finished" in self._run()

    def finish(
        self, best: BestEpoch, outcome: Outcome | None = None, commands: Mapping[str, str] | None = None
    ) -> None:
        """Complete the page, and note that the run has come to its end; arguments as in `write_page`."""
        note = f"It ended early: {best.reason}." if best.exhausted else ""
        self.write_page("finished", note, best=best, outcome=outcome, commands=commands)
        self._note(finished=time.strftime("%Y-%m-%d %H:%M"))

    def close(self) -> None:
        """Close TensorBoard's file."""
        self._tensorboard.close()

    def _run(self) -> dict[str, str]:
        path = self.folder / "run.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return {name: without_machine(value) if name == "command" else value for name, value in known.items()}

    def _note(self, **facts: str) -> None:
        known = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        with write_whole(self.folder / "run.json") as path:
            path.write_text(json.dumps(known | facts, indent=1) + "\n", encoding="utf-8")

    def _write(self) -> None:
        with write_whole(self.folder / "metrics.jsonl") as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")


def without_machine(command: str) -> str:
    """Shorten the absolute paths of a command, so that a page does not reveal the machine's folders."""
    return shlex.join(map(without_folders, shlex.split(command)))
