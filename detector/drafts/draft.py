"""From a folder to a config: recognise, check, split, measure, write; or only check.

In: a folder, or a config of a training.  Out: a Draft, what the command shows.
"""

from __future__ import annotations

import logging
import re
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from detector.config import ConfigError, load_config, peek
from detector.data.dataset import DataConfig, open_dataset
from detector.data.ground_truth import DataError
from detector.data.labelled_images import ImagesConfig, open_images
from detector.data.recognition import Layout, recognise
from detector.device import choose_device, keep_freed_memory
from detector.doctor.checkup import Checkup, examine, examine_images, open_part
from detector.doctor.findings import Finding, merged
from detector.doctor.images import read_facts
from detector.doctor.page import format_counts
from detector.drafts.budget import Plan, plan_images, plan_training
from detector.drafts.files import check_output, write_draft
from detector.drafts.measuring import measure_images, measure_regions
from detector.drafts.opening import TRAIN, VAL, open_folders, open_layout, split_folders, split_part
from detector.drafts.text import Heading, images_per_batch, images_text, regions_text
from detector.invocation import command
from detector.model_files import RUNS
from detector.progress import span
from detector.training.images import ImageTrainingConfig
from detector.training.regions import FineTuneConfig
from detector.training.run import SCHEMAS
from proposals.files import write_whole

_LOG = logging.getLogger(__name__)
Section = TypeVar("Section", DataConfig, ImagesConfig)


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user asks for.

    Attributes:
        minutes: Budget of the training.
        val_share: Share of the images for val where there is no such part.
        seed: Seed of the split and of samples.
        model: Preset or weights that look for unlabelled objects; empty for none.
        output: The config; None for NAME.yaml in the working directory.
        device: Where the training will run.
    """

    minutes: float = 45.0
    val_share: float = 0.2
    seed: int = 0
    model: str = ""
    output: Path | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Draft:
    """What the command shows.

    Attributes:
        checkup: The doctor's report.
        says: Lines above it: what the data set is.
        about: Keys that begin the JSON.
        outcome: Lines below it: what was written, the time, the next commands.
    """

    checkup: Checkup
    says: list[str]
    about: dict[str, Any]
    outcome: list[str] = field(default_factory=list)


def examine_folder(data: Path, wishes: Wishes) -> Draft:
    """Check the data set in a folder and write nothing.

    Raises:
        UserError: the folder holds no data set that is recognised, or the model does not fit it.
    """
    layout = recognise(data)
    if layout.kind == "folder":
        return _draft(layout, examine_images(open_folders(layout.root).parts))
    opened = open_layout(layout, roles=False)
    if not opened.parts:
        return _draft(layout, Checkup((), merged(opened.findings)))
    return _draft(layout, examine(opened.parts, seed=wishes.seed, model=wishes.model, known=opened.findings))


def examine_config(name: str, wishes: Wishes) -> Draft:
    """Check train and val of a config and write nothing.

    Raises:
        UserError: the config cannot be loaded or names no training, its images of one class each cannot be read, or
            the model does not fit them.
    """
    task = str(peek(name, [], "task") or "regions")
    if task not in SCHEMAS:
        raise ConfigError(f"{name}: task must be one of {', '.join(SCHEMAS)}, not {task!r}")
    config: Any = load_config(SCHEMAS[task], name)
    about = {"config": str(name)}
    says = [f"train and val of {name}"]
    if task == "images":
        images = [(part, open_images(getattr(config, part))) for part in (TRAIN, VAL)]
        read = [(part, one, read_facts(one.paths, f"images of {part}")) for part, one in images]
        return Draft(examine_images(read), says, about)
    found: list[Finding] = []
    parts = []
    for part in (TRAIN, VAL):
        one, some = open_part(part, getattr(config, part), classes=config.classes, other_classes=config.other_classes)
        found += some
        parts += [one] if one is not None else []
    if not parts:
        return Draft(Checkup((), merged(found)), says, about)
    proposals = config.proposals if task == "regions" else None
    options: dict[str, Any] = {"seed": wishes.seed, "model": wishes.model, "known": found}
    return Draft(examine(parts, proposals=proposals, **options), says, about)


def new_config(data: Path, wishes: Wishes) -> Draft:
    """Check the data set in a folder, split it if needed, and write a config that trains on it.

    Raises:
        UserError: the folder holds no data set that can be read; there are too few images or objects; the config
            cannot be written.
    """
    layout = recognise(data)
    output = wishes.output or Path(f"{_plain(layout.root.resolve().name)}.yaml")
    lists = {role: output.with_name(f"{output.stem}_{role}.txt") for role in (TRAIN, VAL)}
    check_output(output, {})
    keep_freed_memory()
    return (_images if layout.kind == "folder" else _regions)(layout, wishes, output, lists)


def _regions(layout: Layout, wishes: Wishes, output: Path, lists: dict[str, Path]) -> Draft:
    opened = open_layout(layout)
    broken = [one for one in opened.findings if one.id == "data.unreadable"]
    if broken:
        raise DataError(broken[0].text)
    says = []
    if VAL not in opened.configs:
        opened = split_part(opened, wishes.val_share, wishes.seed)
        says = [_split_line(len(opened.parts[0].dataset), len(opened.parts[1].dataset), wishes)]
    checkup = examine(opened.parts, seed=wishes.seed, model=wishes.model, known=opened.findings)
    train, val = opened.parts[:2]
    if not checkup.sample:
        raise DataError(f"{layout.root}: no image of {len(train.facts):,} for train can be read and has an object")
    if not checkup.counts[1].objects.any():
        raise DataError(f"{layout.root}: no object in the {len(val.facts):,} images of val, nothing to measure on")
    texts = {lists[role]: "\n".join(names) + "\n" for role, names in opened.listed.items()}
    check_output(output, texts)
    sections = _with_lists({role: opened.configs[role] for role in (TRAIN, VAL)}, lists if texts else {})
    _verify(texts, sections, [len(train.facts), len(val.facts)])

    device = choose_device(wishes.device)
    images = images_per_batch(len(checkup.sample))
    name = _free_name(output.stem)
    heading = _heading(layout, checkup, output, says)
    parts: dict[str, Any] = {"images": images, "gpu": device.type != "cpu"}
    draft = _loaded(FineTuneConfig, regions_text(heading, name, *sections.values(), **parts, plan=None))
    seconds = checkup.reach.seconds if checkup.reach else 0.0
    _LOG.info("measuring a few batches on this machine")
    costs = measure_regions(draft, train.dataset, checkup.sample, checkup.boxes, seconds, device)
    plan = plan_training(wishes.minutes, costs, train=len(train.facts), val=len(val.facts), per_batch=images)
    heading = replace(heading, budget=_budget(plan, wishes))
    write_draft(output, regions_text(heading, name, *sections.values(), **parts, plan=plan), texts)
    example = str(val.usable[0].path if val.usable else train.usable[0].path)
    detect = f"{command('detect')} {shlex.quote(example)} --config {shlex.quote(f'{RUNS / name}/detector.yaml')}"
    return _written(layout, checkup, says, [output, *texts], heading, detect)


def _images(layout: Layout, wishes: Wishes, output: Path, lists: dict[str, Path]) -> Draft:
    opened = open_folders(layout.root)
    says = []
    if VAL not in opened.configs:
        opened = split_folders(opened, wishes.val_share, wishes.seed)
        says = [_split_line(len(opened.parts[0][1]), len(opened.parts[1][1]), wishes)]
    checkup = examine_images(opened.parts)
    train, val = opened.parts[0][1], opened.parts[1][1]
    texts = {lists[role]: "\n".join(names) + "\n" for role, names in opened.listed.items()}
    check_output(output, texts)
    sections = _with_lists({role: opened.configs[role] for role in (TRAIN, VAL)}, lists if texts else {})
    _verify(texts, sections, [len(train), len(val)])

    name = _free_name(output.stem)
    heading = _heading(layout, checkup, output, says)
    size = min(32, len(train))
    draft = _loaded(ImageTrainingConfig, images_text(heading, name, *sections.values(), batch=size, epochs=3))
    _LOG.info("measuring a few batches on this machine")
    batch, measured = measure_images(draft, train, val.with_classes(train.classes, TRAIN), choose_device(wishes.device))
    epochs, seconds = plan_images(wishes.minutes, batch, measured, train=len(train), size=size)
    heading = replace(heading, budget=f"Expected on this machine: {span(seconds)}, {epochs} epochs.")
    write_draft(output, images_text(heading, name, *sections.values(), batch=size, epochs=epochs), texts)
    classify = f"{command('classify')} {shlex.quote(str(val.paths[0]))} --models {RUNS / name}/best.safetensors"
    return _written(layout, checkup, says, [output, *texts], heading, classify)


# ---- pieces


def _draft(layout: Layout, checkup: Checkup) -> Draft:
    return Draft(checkup, [f"{layout.root}: {layout.evidence}"], _about(layout))


def _about(layout: Layout) -> dict[str, Any]:
    return {"data": str(layout.root), "layout": layout.kind, "evidence": layout.evidence}


def _written(
    layout: Layout, checkup: Checkup, says: Sequence[str], files: Sequence[Path], heading: Heading, then: str
) -> Draft:
    commands = [heading.train, then]
    about = _about(layout) | {"written": [str(file) for file in files], "commands": commands}
    outcome = [f"wrote {', '.join(map(str, files))}", heading.budget, "next:", *(f"  {line}" for line in commands)]
    return Draft(checkup, [f"{layout.root}: {layout.evidence}", *says], about, outcome)


def _heading(layout: Layout, checkup: Checkup, output: Path, says: Sequence[str]) -> Heading:
    kind = "classifier of whole images" if layout.kind == "folder" else "detector"
    title = f"A {kind} of {len(checkup.counts[0].names)} classes, written by new-config; edit it as you like."
    lines = [f"{layout.evidence}.", *says, *(f"  {line}" for line in format_counts(checkup))]
    return Heading(title, f"{command('train_classifier')} --config {shlex.quote(str(output))}", lines)


def _split_line(train: int, val: int, wishes: Wishes) -> str:
    return f"split by image: {train:,} for train, {val:,} for val (seed {wishes.seed}), near-copies together"


def _budget(plan: Plan, wishes: Wishes) -> str:
    parts = (
        f"proposals {span(plan.proposals)}, linear fit {span(plan.linear)}, "
        f"{plan.epochs} epochs {span(plan.steps)}, AP on val {span(plan.measurements)}"
    )
    line = f"Expected on this machine: at most {span(plan.seconds)}: {parts}."
    return (
        line if plan.fits else f"{line} That is more than the {wishes.minutes:g} asked for, and the least that trains."
    )


def _with_lists(sections: dict[str, Section], lists: dict[str, Path]) -> dict[str, Section]:
    return {role: replace(one, image_list=str(lists[role])) if lists else one for role, one in sections.items()}


def _verify(texts: dict[Path, str], sections: dict[str, Any], counts: Sequence[int]) -> None:
    """Check that lists of images name, for the data set's reader, as many images as they are made of.

    Raises:
        DataError: they do not, as with a name that ends in a blank.
    """
    if not texts:
        return
    with tempfile.TemporaryDirectory() as folder:
        for (role, one), count, (file, text) in zip(sections.items(), counts, texts.items(), strict=True):
            trial = Path(folder) / file.name
            with write_whole(trial) as part:
                part.write_bytes(text.encode(errors="surrogateescape"))
            own = replace(one, image_list=str(trial))
            read = open_images(own) if isinstance(own, ImagesConfig) else open_dataset(own, need_images=False)
            if len(read) != count:
                raise DataError(f"{one.root}: of {count:,} images for {role} a list names {len(read):,}; rename them")


def _loaded(schema: Any, text: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "draft.yaml"
        with write_whole(file) as part:
            part.write_text(text, encoding="utf-8")
        return load_config(schema, file)


def _plain(name: str) -> str:
    """Return a name that a shell takes without quotes."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("._-") or "data"


def _free_name(stem: str) -> str:
    """Return a name of a run that there is not yet."""
    stem = _plain(stem)
    names = (stem, *(f"{stem}-{number}" for number in range(2, 1000)))
    return next((name for name in names if not (RUNS / name).exists()), stem)
