"""What is trained, as the page of a run shows it: classes and their counts, data, start weights, settings.

In: a config and its data sets.  Out: a `Training`.
"""

from __future__ import annotations

from dataclasses import MISSING as NONE
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from detector.config import MISSING as NOWHERE
from detector.config import config_to_dict
from detector.data.counts import objects_per_class
from detector.data.ground_truth import Dataset
from detector.data.labelled_images import LabelledImages
from detector.evaluation.results import class_keys
from detector.report.training_page import Training
from detector.training.images import ImageTrainingConfig
from detector.training.multibox import MultiBoxTrainingConfig
from detector.training.regions import FineTuneConfig


def of_boxes(config: FineTuneConfig | MultiBoxTrainingConfig, train: Dataset, val: Dataset, epochs: int) -> Training:
    """Describe a training on boxes, of regions or MultiBox.

    Args:
        config: Its settings.
        train: Images to train on.
        val: Images to measure on, with the same classes.
        epochs: Number of epochs, which of MultiBox's head are its own.
    """
    if isinstance(config, MultiBoxTrainingConfig):
        what = "MultiBox, which proposes boxes of any class"
    else:
        how = "cut from maps of the whole image" if config.mode == "shared" else "warped one by one"
        what = f"Classifier of regions, {how}"
    facts = {"train": _images(train.name, len(train)), "val": _images(val.name, len(val))}
    return Training(
        name=config.name,
        what=what,
        unit="objects",
        keys=tuple(class_keys(train.classes)),
        names=train.classes.names,
        train=tuple(objects_per_class(train).tolist()),
        val=tuple(objects_per_class(val).tolist()),
        init=config.init,
        facts=facts,
        settings=differing(config),
        epochs=epochs,
    )


def of_images(config: ImageTrainingConfig, train: LabelledImages, val: LabelledImages) -> Training:
    """Describe a training on whole images."""
    counts = [np.bincount(one.labels, minlength=len(train.classes)).tolist() for one in (train, val)]
    unique = len(set(train.classes)) == len(train.classes)
    return Training(
        name=config.name,
        what="Classifier of whole images",
        unit="images",
        keys=train.classes if unique else tuple(f"{name} #{label}" for label, name in enumerate(train.classes)),
        names=train.classes,
        train=tuple(counts[0]),
        val=tuple(counts[1]),
        init=config.init_from or "fresh weights",
        facts={
            "train": _images(config.train.root, len(train)),
            "val": _images(config.val.root, len(val)),
        },
        settings=differing(config),
        epochs=config.epochs,
    )


def differing(config: Any) -> dict[str, tuple[str, str]]:
    """List the settings of a dataclass that differ from its defaults, nested ones by dotted keys.

    Returns:
        key -> (value, default), written as YAML; the default is empty where a setting has none.
    """
    return dict(_differing(config, None, ""))


def _differing(config: Any, usual: Any, prefix: str) -> list[tuple[str, tuple[str, str]]]:
    found: list[tuple[str, tuple[str, str]]] = []
    for one in fields(config):
        value, default = getattr(config, one.name), NONE if usual is None else getattr(usual, one.name)
        if usual is None:
            default = one.default if one.default_factory is NONE else one.default_factory()
        if value == default:
            continue
        key = prefix + one.name
        if is_dataclass(value):
            found += _differing(value, default if type(default) is type(value) else None, f"{key}.")
        elif isinstance(value, tuple) and value and all(map(is_dataclass, value)):  # data sets
            found += [pair for place, part in enumerate(value) for pair in _differing(part, None, f"{key}.{place}.")]
        else:
            found.append((key, (_written(value), "" if default is NONE else _written(default))))
    return found


def _written(value: Any) -> str:
    """Write a value in one line of YAML."""
    if is_dataclass(value):
        value = config_to_dict(value)
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, tuple):
        value = list(value)
    if value == NOWHERE:
        return ""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1_000_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _images(name: str, count: int) -> str:
    return f"{name}: {count:,} images"
