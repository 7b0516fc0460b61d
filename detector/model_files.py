"""Model files by name, and their headers: what weights are, before any are loaded. This module needs no torch.

In: a name: a file, the folder of a run, or shipped weights.  Out: a path; what its header says.
The files are safetensors (no pickle); everything but the tensors is JSON in the header, under metadata "header".
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from safetensors import SafetensorError, safe_open

from detector.invocation import command
from proposals.errors import UserError

REGION_FORMAT = "googlenet-rcnn region classifier 1"
IMAGE_FORMAT = "googlenet-rcnn image classifier 1"
MULTIBOX_FORMAT = "googlenet-rcnn multibox 1"
REJECTION_FORMAT = "googlenet-rcnn rejection 1"
CLASSIFIERS = (REGION_FORMAT, IMAGE_FORMAT)
FORMATS = (*CLASSIFIERS, MULTIBOX_FORMAT, REJECTION_FORMAT)

SHIPPED = Path(__file__).parent / "weights"
RUNS = Path("runs")
BEST = "best.safetensors"


class CheckpointError(UserError):
    """A checkpoint is missing or cannot be used; the message names the file and what to do."""


def find_weights(name: str) -> Path | None:
    """Find a weights file by its path, by the folder of its run, or by the name of shipped weights.

    Args:
        name: A file; a folder that holds best.safetensors, as runs/mine; or the name of shipped weights.

    Returns:
        The file; None where there is nothing of that name.

    Raises:
        CheckpointError: It is a folder without best.safetensors; the message says how far its run is.
    """
    path, shipped = Path(name).expanduser(), SHIPPED / f"{name}.safetensors"
    found = next((one for one in (path, path / BEST, shipped) if one.is_file()), None)
    if found is None and name and path.is_dir():
        raise CheckpointError(_without_weights(path))
    return found


def find_model(name: str) -> Path:
    """Find a model file of any kind by its name, as `find_weights`.

    Raises:
        CheckpointError: There is none, and the message gives the nearest names; or as `find_weights`.
    """
    found = find_weights(name)
    if found is None:
        near = suggestion(name, FORMATS) or f" {command('models')} list shows all"
        raise CheckpointError(f"no model {name}{'.' if 'Did' in near else ';'}{near}")
    return found


def shipped_names(formats: Sequence[str]) -> list[str]:
    """List the shipped weights of some formats by name."""
    return sorted(file.stem for file in SHIPPED.glob("*.safetensors") if weights_format(file) in formats)


def runs_with_weights() -> list[Path]:
    """List the folders in runs/ that hold best.safetensors."""
    return sorted(path.parent for path in RUNS.glob(f"*/{BEST}"))


def suggestion(name: str, formats: Sequence[str]) -> str:
    """Return " Did you mean ...?" with the nearest names of weights and runs; empty where none is near."""
    known = [*shipped_names(formats), *map(str, runs_with_weights())]
    asked = str(Path(name).parent if Path(name).name == BEST else Path(name)).removesuffix(".safetensors")
    short = {one.rpartition("/")[2]: one for one in reversed(known)}
    near = difflib.get_close_matches(asked, known) or difflib.get_close_matches(Path(asked).name, list(short))
    names = [repr(short.get(one, one)) for one in near]
    return f" Did you mean {' or '.join(names)}?" if names else ""


def weights_format(path: Path) -> str:
    """Return the format that a weights file states; empty if another program wrote it.

    Raises:
        CheckpointError: the file is missing, or is no safetensors file.
    """
    return read_metadata(path).get("format", "")


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; raises CheckpointError if it is missing or no safetensors file."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}")
    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from error


def read_header(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """Return this project's header in the metadata; raises CheckpointError if it is damaged."""
    try:
        header: dict[str, Any] = json.loads(metadata["header"])
        header.keys()
    except (KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its header is damaged: {error}") from error
    return header


def ranges_file(weights: Path) -> Path:
    """Return the path of the ranges of a weights file's activations: beside it, NAME.ranges.json."""
    return weights.with_suffix(".ranges.json")


def rejection_path(model: Path) -> Path:
    """Return where the rejection layer of a model lies: beside it."""
    return model.with_suffix(".rejection.safetensors")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_run(folder: Path) -> dict[str, Any] | None:
    """Return the resolved settings of a training's folder; None where no training wrote it, or they are damaged."""
    if not any((folder / part / "run.json").is_file() for part in ("", "head")):
        return None
    for part in ("", "head"):
        try:
            content = yaml.safe_load((folder / part / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(content, dict):
            return content
    return None


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Read the rows of a run's metrics.jsonl; lines that a kill or a full disk has cut off are skipped."""
    path, rows = folder / "metrics.jsonl", []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "epoch" in row:
            rows.append(row)
    return rows


def _without_weights(folder: Path) -> str:
    """Say why a folder has no best.safetensors, and what to do."""
    settings = read_run(folder)
    if settings is None and (folder / "detections.jsonl").is_file():
        return f"{folder} is an evaluation and holds no weights; name the folder of a training"
    if settings is None:
        listing = f"{command('models')} list"
        return f"{folder}: a folder without {BEST}, which a training writes; name a file, a run or weights: {listing}"
    is_multibox, part = "heads" in settings, ""
    if is_multibox and not (folder / "run.json").is_file():  # its head is trained first
        folder, part, settings = folder / "head", " of its head", settings["heads"] or {}
    rows = read_metrics(folder)
    total = settings.get("epochs")
    done = f"{rows[-1]['epoch']:g} of {total} epochs{part} are done" if rows else f"no epoch{part} is done yet"
    run = folder.parent if part else folder
    config = next((one for one in (run / "config.yaml", run / "head" / "config.yaml") if one.is_file()), run)
    resume = f"{command('train_multibox' if is_multibox else 'train_classifier')} --config {config} --resume auto"
    last = f", or take {run / 'last.safetensors'}" if (run / "last.safetensors").is_file() else ""
    return f"{run} has no {BEST}: {done}; go on with its training: {resume}{last}"
