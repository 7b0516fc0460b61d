"""A training run from its config to its folder: read, propose, fine-tune, record.

runs/<name>/ holds config.yaml (resolved, reloadable), run.json (command, versions, device), metrics.jsonl (a row an
epoch, 0 being the linear fit), linear.safetensors, best.safetensors, last.safetensors (region classifiers) and state.pt
(to resume).
"""

from __future__ import annotations

import json
import platform
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import FrameType

import torch

from detector.checkpoint import CheckpointError, RegionClassifier, load_checkpoint
from detector.config import load_config, save_config
from detector.data.dataset import open_dataset
from detector.data.ground_truth import ClassTable, DataError, Dataset
from detector.device import choose_device, keep_freed_memory
from detector.extraction import dataset_proposals
from detector.googlenet import GoogLeNet
from detector.pretrained import load_caffe
from detector.training.finetune import FineTuneConfig, FineTuning, TrainingError, WindowBatches, append_row
from detector.training.windows import BatchSampler, collect_windows

RUNS = Path("runs")


def train(config_name: str, overrides: Sequence[str], *, device: str = "auto", resume: bool = False) -> Path:
    """Carry out the experiment of a config; returns the folder of the run.

    Args:
        config_name: YAML file or preset of FineTuneConfig.
        overrides: key=value texts.
        device: as detector.device names it.
        resume: go on where the run of that name stopped; without one, start.

    Raises:
        ConfigError, DataError, ImageError, CheckpointError, TrainingError, OSError, ValueError: a message for the user.
    """
    config = load_config(FineTuneConfig, config_name, overrides)
    where = choose_device(device)
    keep_freed_memory()
    folder = RUNS / config.name
    resuming = _check_folder(folder, config, resume)
    train_set, val_set = open_dataset(config.train), open_dataset(config.val)
    for dataset in (train_set, val_set):
        for warning in dataset.warnings:
            print(f"train_classifier: warning: {warning}", file=sys.stderr)
    if train_set.classes != val_set.classes:
        raise DataError(f"train and val have different classes: {train_set.classes.names}, {val_set.classes.names}")

    torch.manual_seed(config.seed)
    template = start_classifier(config, train_set.classes)
    if config.train_from != "none":
        template.network.trunk_slice(config.train_from)  # a wrong name is refused before an hour of proposals

    def batches(dataset: Dataset, seed: int) -> WindowBatches:
        store = dataset_proposals(dataset, config.proposals, Path(config.cache), max(1, config.workers))
        proposals = [store.get(record.image_id, record.path.read_bytes()).boxes for record in dataset.records]
        windows = collect_windows(dataset, proposals, config.foreground_iou, config.background_iou)
        sampler = BatchSampler(
            windows, batch=config.batch, foreground=config.foreground, seed=seed, hard=config.hard_background
        )
        return WindowBatches(dataset, sampler, config.regions, template.convention.mean)

    run = FineTuning(
        config, template, batches(train_set, config.seed), batches(val_set, 0), folder=folder, device=where
    )
    if resuming:
        run.load_state()
        print(f"resumed {folder} at batch {run.step} of {run.steps}", file=sys.stderr)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").unlink(missing_ok=True)
        save_config(config, folder / "config.yaml")
        (folder / "run.json").write_text(json.dumps(describe_run(where), indent=1) + "\n", encoding="utf-8")
        _report(folder, run.fit_last_layer())
        run.save_state()
    if config.train_from != "none":
        with _stop_after_batch(run):
            for row in run.run():
                _report(folder, row)
    print(f"done: python tools/detect.py image.jpg models=[{folder}/best.safetensors]")
    return folder


def start_classifier(config: FineTuneConfig, classes: ClassTable) -> RegionClassifier:
    """The pretrained network with a fresh last layer for the classes and background."""
    path = Path(config.init).expanduser()
    if not path.is_file():
        raise CheckpointError(
            f"no pretrained weights {path}; set init=FILE (safetensors with Caffe's or our layer names)"
        )
    network: GoogLeNet
    try:
        previous = load_checkpoint(path)
        network, convention = previous.network, previous.convention
    except CheckpointError:
        network, convention = load_caffe(path)
    network.replace_classifier(len(classes) + 1)
    return RegionClassifier(network, convention, config.regions, classes)


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


def _check_folder(folder: Path, config: FineTuneConfig, resume: bool) -> bool:
    """Whether to resume; refuses to overwrite a run, or to resume one with other settings."""
    if not (folder / "state.pt").is_file():
        return False
    if not resume:
        raise TrainingError(f"{folder} has a run already; --resume auto continues it, name=OTHER starts another")
    before, now = load_config(FineTuneConfig, folder / "config.yaml"), config
    for item in fields(FineTuneConfig):
        old, new = getattr(before, item.name), getattr(now, item.name)
        if old != new and item.name not in ("workers", "cache"):
            raise TrainingError(
                f"{folder} was trained with {item.name} = {old}, not {new}; name=OTHER starts another run"
            )
    return True


@contextmanager
def _stop_after_batch(run: FineTuning) -> Iterator[None]:
    """Ctrl-C and SIGTERM let the batch under way finish and be saved; a second one stops at once."""

    def stop(number: int, _: FrameType | None) -> None:
        if run.stopping:
            raise KeyboardInterrupt
        run.stopping = True

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _report(folder: Path, row: dict[str, float]) -> None:
    append_row(folder, row)
    print("  ".join(f"{key} {value:.5g}" for key, value in row.items()), flush=True)


USER_ERRORS = (OSError, TrainingError, ValueError)
