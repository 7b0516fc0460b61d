"""List model files, describe one, or export one as ONNX or as half-size safetensors."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.commands.arguments import command_parser, start

if TYPE_CHECKING:
    from detector.commands.model_facts import Model, Preset

NOTES = """A model is named by its file, by the folder of its run (runs/mine), or as shipped weights.
The settings models, init, init_from and proposals.multibox.weights take the same names.

tasks:
  warped     classifies regions, warped one by one
  maps       classifies regions, cut from an image's maps
  images     classifies whole images
  MultiBox   proposes boxes
  rejection  drops regions before the model beside it"""
EXAMPLES = """
models list
models list --json
models info shared_voc0712
models export googlenet_voc --format onnx
models export runs/mine --format safetensors --output mine.safetensors "data=400 photographs of birds"
"""
ROOMY = 100  # columns of a terminal from which the table has all columns


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("models", __doc__, EXAMPLES, NOTES)
    add = result.add_argument
    add("action", choices=("list", "info", "export"), help="list all; describe one; export one, checked")
    add("name", nargs="?", metavar="NAME", help="of info and export: a file, the folder of a run, or shipped weights")
    add("provenance", nargs="*", metavar="topic=text", help="of export: added to the header of safetensors")
    add("--json", action="store_true", help="of list and info: print JSON")
    add("--format", choices=("onnx", "safetensors"), help="of export; safetensors are float16, half the size")
    add("--output", type=Path, metavar="FILE", help="of export (default: NAME.FORMAT in this folder)")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """List, describe or export; return the exit code."""
    return start(parser(), arguments, _work, check=_check, stopped="nothing was written", printed_only=True)


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    exports = options.action == "export"
    if options.action == "list" and options.name:
        parser.error(f"list takes no name; to see one: info {options.name}")
    if options.action != "list" and not options.name:
        parser.error(f"{options.action} which one? give a NAME of models list")
    if exports and not options.format:
        parser.error("export --format onnx or --format safetensors")
    if not exports and (options.format or options.output or options.provenance):
        parser.error("--format, --output and topic=text are for export")
    if any("=" not in text for text in options.provenance):
        parser.error("provenance is given as topic=text")
    if options.provenance and options.format == "onnx":
        parser.error("topic=text goes into the header of safetensors; ONNX has none")
    if exports and options.json:
        parser.error("--json is for list and info")


def _work(options: argparse.Namespace) -> None:
    if options.action == "export":
        from detector.commands.model_export import export

        added = dict(text.split("=", 1) for text in options.provenance)
        print(export(options.name, options.format, options.output, added))
        return
    from detector.commands.model_facts import describe, list_models, list_presets
    from detector.terminal import table_width

    if options.action == "list":
        models, presets = list_models(), list_presets()
        if options.json:
            print(_json({"models": [_record(one) for one in models], "presets": [asdict(one) for one in presets]}))
        else:
            print(format_list(models, presets, table_width()))
    else:
        model = describe(options.name)
        print(_json(_full_record(model)) if options.json else format_info(model, table_width()))


def format_list(models: Sequence[Model], presets: Sequence[Preset], width: int | None = None) -> str:
    """Format the table of models and the table of presets.

    Args:
        models: The models.
        presets: The presets.
        width: Columns of the terminal, see `detector.table.columns`; below 100 the weights' start is left out.
    """
    from detector.table import columns

    rows = [("model", "task", "measured on", "start", "classes", "AP", "MiB", "SHA-256")]
    for one in models:
        size, count = f"{one.bytes / 2**20:.1f}", str(len(one.classes) or "-")
        about = (one.task, one.measured.on or "-", one.start or "-")
        rows.append((one.name, *about, count, _number(one.measured.ap), size, one.sha256[:8]))
    table: list[Sequence[str]] = list(rows)
    cut = [2, 3]
    if width is not None and width < ROOMY:
        table, cut = [(*row[:3], *row[4:]) for row in rows], [2]
    parts = columns(table, width=width, left=(0, 1, *cut), cut=cut)
    second: list[Sequence[str]] = [("preset", "models", "MultiBox", "measured on", "AP", "s/image")]
    for preset in presets:
        names = ", ".join(preset.models) if len(preset.models) < 3 else f"{len(preset.models)}: {preset.models[0]}, ..."
        where = "to be trained" if preset.missing else preset.measured.on or "-"
        seconds = "-" if preset.measured.seconds is None else f"{preset.measured.seconds:.2f}"
        second.append((preset.name, names, preset.multibox or "-", where, _number(preset.measured.ap), seconds))
    parts += ["", *columns(second, width=width, left=(0, 1, 2, 3), cut=(1, 2, 3))]
    circumstances = {preset.measured.how for preset in presets if preset.measured.seconds is not None}
    return "\n".join([*parts, *(f"s/image: {how}" for how in sorted(circumstances))])


def format_info(model: Model, width: int | None = None) -> str:
    """Format all that is known of one model, a fact a line."""
    from detector.table import wrapped

    record = _full_record(model)
    measured, network = model.measured, model.header.get("network", {})
    lines = [
        f"{model.name}: {_shown(model.file)}, {model.bytes / 2**20:.1f} MiB",
        f"task: {TASKS[model.task]}",
        f"SHA-256: {model.sha256}",
    ]
    if measured.ap is not None:
        lines.append(f"AP: {measured.ap:.3f} on {measured.on} ({measured.how})")
    if model.start:
        lines.append(f"start: {model.start}")
    lines += [f"{topic}: {text}" for topic, text in record["provenance"].items() if topic not in ("start", "command")]
    if record["command"]:
        lines.append(f"command: {record['command']}")
    if network:
        settings = ", ".join(f"{key} {value}" for key, value in network.items() if key != "classes")
        lines.append(f"network: GoogLeNet of {network.get('classes')} outputs; {settings}")
    for key in ("convention", "regions", "shared", "size", "regression", "head", "layer", "threshold", "trunk_file"):
        value = model.header.get(key)
        if value is True:
            lines.append(f"{NAMES.get(key, key)}: yes")
        elif value not in (None, "", False):
            shown = ", ".join(f"{one} {part}" for one, part in value.items()) if isinstance(value, dict) else value
            lines.append(f"{NAMES.get(key, key)}: {shown}")
    lines += [f"{what}: {_shown(Path(path))}" for what, path in record["files"].items()]
    lines.append(f"presets: {', '.join(record['presets']) or 'none'}")
    if model.classes:
        lines.append(f"{len(model.classes)} classes: {', '.join(model.classes)}")
    return "\n".join(wrapped(line, width) for line in lines)


TASKS = {
    "warped": "classifies regions, each warped to a square",
    "maps": "classifies regions that are cut from maps of the whole image",
    "images": "classifies whole images",
    "MultiBox": "proposes boxes (MultiBox)",
    "rejection": "rejects regions before the model that it lies beside scores them",
    "other": "unknown; weights of another program, which a training may take as init",
}
NAMES = {
    "convention": "input, RGB 0-255 minus mean, divided by std",
    "regions": "regions, px",
    "shared": "maps, px",
    "size": "side of the input, px",
    "regression": "box regression",
    "trunk_file": "its trunk is that of",
}


def _record(model: Model) -> dict[str, Any]:
    return asdict(model) | {"file": str(model.file)}


def _full_record(model: Model) -> dict[str, Any]:
    from detector.commands.model_facts import companions, training_command, uses

    return _record(model) | {
        "provenance": model.header.get("provenance", {}),
        "command": training_command(model),
        "files": {what: str(path) for what, path in companions(model).items()},
        "presets": [one.name for one in uses(model)],
    }


def _shown(path: Path) -> str:
    """Return a path as short as the user can paste it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path)


def _json(content: object) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
