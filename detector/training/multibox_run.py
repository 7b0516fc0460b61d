"""A MultiBox training from its config to its folder: the head alone on cached features, then trunk and head.

runs/<name>/ gets what record.py lists, best.safetensors and last.safetensors (models) and state.pt; its sub-folder
head/ the same of the first part. Without a second part (train_from=none) the head's best is the run's best.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from detector.checkpoint import SHIPPED, find_checkpoint
from detector.config import load_config
from detector.data.content import dataset_digest
from detector.data.dataset import open_dataset, readable_part
from detector.data.ground_truth import exhaustive_part
from detector.device import choose_precision, keep_freed_memory
from detector.invocation import command
from detector.multibox import MultiBoxModel, file_sha256, load_multibox, trunk_of
from detector.training.counts import check_objects, smaller_than_batch
from detector.training.loop import Loop
from detector.training.multibox import (
    MultiBoxTraining,
    MultiBoxTrainingConfig,
    Views,
    cached_features,
    start_multibox,
    val_features,
)
from detector.training.ranks import joined
from detector.training.readable import report_unread
from detector.training.record import check_folder, owned
from detector.training.run import RUNS, carry_on
from proposals.files import write_whole


def train_multibox(config_name: str, overrides: Sequence[str], *, device: str = "auto", resume: bool = False) -> Path:
    """Carry out the experiment of a config; returns the folder of the run.

    Args:
        config_name: YAML file or preset of MultiBoxTrainingConfig.
        overrides: key=value texts.
        device: as detector.device names it.
        resume: go on where the run of that name stopped; without one, start.

    Raises:
        UserError, OSError: a message for the user; TrainingError at the end where images could not be read.
        KeyboardInterrupt: stopped, and saved.
    """
    config = load_config(MultiBoxTrainingConfig, config_name, overrides)
    keep_freed_memory()
    folder = RUNS / config.name
    with joined(device) as ranks, owned(folder, leads=ranks.leads):
        resuming_head = check_folder(folder / "head", config, resume=resume)
        # A prior that claims no object is taught to be none: not where objects have no box.
        train_set, val_set = exhaustive_part(open_dataset(config.train)), open_dataset(config.val)
        (train_set, lines), (val_set, more) = (readable_part(part, config.workers) for part in (train_set, val_set))
        for line in (*lines, *more) if ranks.leads else ():
            print(f"train_multibox: warning: {line}; left out", file=sys.stderr)
        for dataset in (train_set, val_set):
            for warning in dataset.warnings if ranks.leads else ():
                print(f"train_multibox: warning: {warning}", file=sys.stderr)
        counts = check_objects(train_set, val_set)
        for line in (*counts, *smaller_than_batch("train", len(train_set), config.batch, "images")):
            if ranks.leads and not resuming_head:
                print(f"train_multibox: {line}", file=sys.stderr)
        source = find_checkpoint(config.init)
        classifier, convention = trunk_of(config.init)
        if config.train_from not in ("conv1", "none"):
            classifier.trunk_slice(config.train_from)  # a wrong name is refused before the head is trained
        network = start_multibox(config, classifier.trunk, classifier.fc.in_features, train_set)
        sha256 = file_sha256(source)
        # Of a shipped classifier the trunk need not be stored again.
        shared = (source.stem, sha256) if source.parent == SHIPPED else ("", "")
        model = MultiBoxModel(network.eval().to(ranks.device), classifier.config, convention, config.size, *shared)
        views = Views(train_set, config)
        sets = (train_set, val_set) if ranks.leads else ()  # the first reads them for all
        data = ranks.from_first(" ".join([sha256, *map(dataset_digest, sets)]))
        features = cached_features(views, model, sha256, ranks)
        measured = val_features(val_set, model, ranks, choose_precision(config.precision, ranks.device))
        task = MultiBoxTraining(config, model, features, val_set, features=measured, ranks=ranks)
        carry_on(Loop(task, config.heads, folder / "head", ranks, data=data), config, resuming_head)

        if config.train_from == "none":
            if ranks.leads:
                with write_whole(folder / "best.safetensors") as path:
                    shutil.copyfile(folder / "head" / "best.safetensors", path)
        else:
            resuming = check_folder(folder, config, resume=resume)
            best = load_multibox(folder / "head" / "best.safetensors")
            model.network.head.load_state_dict(best.network.head.state_dict())
            task = MultiBoxTraining(config, model, views, val_set, ranks=ranks)
            carry_on(Loop(task, config, folder, ranks, data=data), config, resuming)
    if ranks.leads:
        print(f"done: {command('detect')} image.jpg proposals.multibox.weights={folder}/best.safetensors")
    report_unread(len(lines) + len(more), [*lines, *more])
    return folder
