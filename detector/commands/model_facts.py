"""What is known of model files without loading them: shipped weights, own runs, and the presets that use them.

In: headers of safetensors files, records of runs, weights/measured.json.  Out: `Model` and `Preset`. No torch.
An AP is given where it was measured: measured.json has those of the cards in weights/README.md, an evaluation of a run
alone (eval_map) gives its own, and a training with ap_every that of the epoch that was kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from detector import model_files
from detector.config import PRESETS, ConfigError, load_config
from detector.model_files import (
    BEST,
    FORMATS,
    IMAGE_FORMAT,
    MULTIBOX_FORMAT,
    REGION_FORMAT,
    REJECTION_FORMAT,
    CheckpointError,
    file_sha256,
    find_model,
    find_weights,
    ranges_file,
    read_header,
    read_metadata,
    read_metrics,
    read_run,
    rejection_path,
    runs_with_weights,
)
from detector.settings import DetectorConfig


@dataclass(frozen=True)
class Measured:
    """A measurement.

    Attributes:
        ap: Mean AP, in [0, 1]; None where it is not known.
        on: Data it was measured on; empty where it is not known.
        how: Circumstances, in words.
        seconds: Seconds an image; None where they are not known.
    """

    ap: float | None = None
    on: str = ""
    how: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Model:
    """A model file.

    Attributes:
        name: Name under which init and models take it.
        file: The file.
        task: What it does, in a word: warped, maps, MultiBox, images, rejection, or other for another program's.
        classes: Names of its classes; empty where it has none, or its file states none.
        bytes: Size of the file.
        sha256: SHA-256 of the file's content.
        start: Weights that its training began with; empty where that is not known.
        measured: Its AP.
        header: Its header without the classes; empty for another program's file.
    """

    name: str
    file: Path
    task: str
    classes: tuple[str, ...]
    bytes: int
    sha256: str
    start: str
    measured: Measured
    header: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """A shipped preset of a detector.

    Attributes:
        name: Name of the preset.
        models: Its models.
        multibox: Its MultiBox; empty for none.
        missing: Those of its weights that are not there.
        measured: Its AP and seconds an image.
    """

    name: str
    models: tuple[str, ...]
    multibox: str
    missing: tuple[str, ...]
    measured: Measured


def list_models() -> list[Model]:
    """List the shipped weights, then the runs in runs/ that have their best weights; files of others are left out.

    A damaged file is left out too: `describe` of its name says what is wrong.
    """
    found = []
    for name in [*sorted(file.stem for file in model_files.SHIPPED.glob("*.safetensors")), *runs_with_weights()]:
        try:
            found.append(describe(str(name)))
        except CheckpointError:
            continue
    return found


def describe(name: str) -> Model:
    """Describe a model by its name.

    Args:
        name: A file, the folder of a run, or shipped weights.

    Raises:
        CheckpointError: There is nothing of that name, and the message gives the nearest names; it is a run without its
            best weights; or the file is no safetensors file.
    """
    file = find_model(name)
    metadata = read_metadata(file)
    form = metadata.get("format", "")
    known = form in FORMATS
    header = read_header(file, metadata) if known else {}
    classes = header.pop("classes", None) or ()
    classes = tuple(classes["names"] if isinstance(classes, Mapping) else classes)
    shared = "maps" if header.get("shared") else "warped"
    tasks = {REGION_FORMAT: shared, IMAGE_FORMAT: "images", MULTIBOX_FORMAT: "MultiBox", REJECTION_FORMAT: "rejection"}
    sha256 = file_sha256(file)
    is_shipped = file.resolve().parent == model_files.SHIPPED.resolve()
    measured = _of_card("weights", file.stem) if is_shipped else _of_run(file, sha256)
    return Model(
        name=name,
        file=file,
        task=tasks.get(form, "other"),
        classes=classes,
        bytes=file.stat().st_size,
        sha256=sha256,
        start=_start(file, header),
        measured=measured,
        header=header,
    )


def list_presets() -> list[Preset]:
    """List the shipped presets of detectors."""
    found = []
    for file in sorted(next(folder for folder in PRESETS if folder.is_dir()).glob("*.yaml")):
        try:
            config = load_config(DetectorConfig, file)
        except ConfigError:  # a preset of another command
            continue
        multibox = config.proposals.multibox.weights
        missing = [name for name in (*config.models, multibox) if name and not _is_there(name)]
        measured = _of_card("presets", file.stem)
        found.append(Preset(file.stem, tuple(config.models), multibox, tuple(missing), measured))
    return found


def companions(model: Model) -> dict[str, Path]:
    """Return the files that belong to a model, by what they are."""
    beside = {
        "ranges of activations, for precision=int8": ranges_file(model.file),
        "rejection layer": rejection_path(model.file),
    }
    found = {what: path for what, path in beside.items() if path.is_file() and path != model.file}
    for path in sorted(model.file.parent.glob("*.points.json")):
        owner = next((one for one in list_presets() if f"{one.name}.points.json" == path.name), None)
        if owner is None or _same(owner.models[0], model.file):
            found[f"operating points{f' of the preset {owner.name}' if owner else ''}"] = path
    for name in ("config.yaml", "run.json", "metrics.jsonl") if model.file.name == BEST else ():
        if (model.file.parent / name).is_file():
            found[f"the run's {name}"] = model.file.parent / name
    return found


def uses(model: Model) -> list[Preset]:
    """Return the presets that use a model; a rejection layer's are those of the model that it lies beside."""
    wanted = model.file
    if model.task == "rejection":
        wanted = wanted.with_name(wanted.name.replace(".rejection.", "."))
    presets = [one for one in list_presets() if any(_same(name, wanted) for name in (*one.models, one.multibox))]
    return [one for one in presets if model.task != "rejection" or _same(one.models[0], wanted)]


def training_command(model: Model) -> str:
    """Return the command that trained a model, as its header or its run states it; empty where neither does."""
    stated = model.header.get("provenance", {}).get("command", "")
    return str(stated or _read_json(model.file.parent / "run.json").get("command", ""))


def _start(file: Path, header: Mapping[str, Any]) -> str:
    """Return what a training began with: by the header, else by the run's settings, else the recipe's first words."""
    provenance = header.get("provenance", {})
    run = (read_run(file.parent) if file.name == BEST else None) or {}
    stated = provenance.get("start") or run.get("init") or run.get("init_from")
    return str(stated or re.split(r"[,;(]| fine-tuned", str(provenance.get("recipe", "")))[0]).strip()


def _of_card(kind: str, name: str) -> Measured:
    known = _read_json(model_files.SHIPPED / "measured.json").get(kind, {}).get(name)
    return Measured(**known) if known else Measured()


def _of_run(file: Path, sha256: str) -> Measured:
    """Return the AP of an evaluation with these weights alone, the latest; else that of the epoch, by the training."""
    if sha256 in (evaluated := _evaluations()):
        return evaluated[sha256]
    best = re.match(r"epoch (\d+)", str(_read_json(file.parent / "run.json").get("best", "")))
    for row in read_metrics(file.parent) if best and file.name == BEST else ():
        if best and row["epoch"] == int(best[1]) and "val_ap" in row:
            return Measured(row["val_ap"], "val", f"epoch {best[1]} of its training")
    return Measured()


@cache
def _evaluations() -> dict[str, Measured]:
    """Return mean AP by the SHA-256 of the weights, of the evaluations in runs/ of a single model."""
    found: dict[str, Measured] = {}
    reports = sorted(model_files.RUNS.glob("*/report.json"), key=lambda path: path.stat().st_mtime)
    for path in reports:
        try:
            with (path.parent / "detections.jsonl").open(encoding="utf-8") as journal:
                weights = json.loads(journal.readline())["settings"]["weights"]
            report = json.loads(path.read_text(encoding="utf-8"))
            if len(weights) == 1:
                how = f"{report['protocol']}, {report['counts']['images']} images"
                found[weights[0]] = Measured(float(report["mean_ap"]), str(path.parent), how)
        except (OSError, ValueError, KeyError, TypeError):  # no evaluation, or a damaged one
            continue
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_there(name: str) -> bool:
    try:
        return find_weights(name) is not None
    except CheckpointError:
        return False


def _same(name: str, file: Path) -> bool:
    found = find_weights(name) if name and _is_there(name) else None
    return found is not None and file.exists() and found.samefile(file)
