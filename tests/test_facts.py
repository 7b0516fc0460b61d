"""What a page says of a training: settings that differ, and counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from detector.config import load_config
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import with_classes
from detector.training.facts import differing, of_boxes
from detector.training.regions import FineTuneConfig

DATA = [
    "train.kind=voc",
    "train.root=a",
    "val.kind=voc",
    "val.root=Bilder äß",
    "val.classes=[no,'x: y']",
    "init=a.onnx",
]


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ([], set()),
        (["epochs=3", "patience=0", "tensorboard=false"], {"epochs", "tensorboard"}),
        (["proposals.multibox.weights=multibox_voc", "proposals.width=500"], {"proposals.multibox.weights"}),
        (["teacher.extends=fast", "mining.background=2"], {"teacher", "mining.background"}),
        (["mode=shared", "images=4", "shared.pyramid=[96,192]"], {"mode", "images", "shared.pyramid"}),
        (["other_classes=background", "variants=[[seed=3]]"], {"other_classes", "variants"}),
    ],
)
def test_the_settings_that_differ_are_those_that_make_the_config(settings: list[str], keys: set[str]) -> None:
    """Given as overrides to the defaults they give the same config; and they are no more than were set."""
    config = load_config(FineTuneConfig, None, [*DATA, *settings])
    found = differing(config)
    assert {key.split(".")[0] if key.startswith("teacher") else key for key in found} == keys | {
        item.partition("=")[0] for item in DATA
    }
    given = [f"{key}={value}" for key, (value, _) in found.items()]
    assert load_config(FineTuneConfig, None, given) == config
    assert found["val.classes"][1] == "[]"
    assert found["init"] == ("a.onnx", "")


def test_data_sets_of_a_list_have_numbers() -> None:
    data = DataConfig(DatasetKind.voc, "a", "train")
    config = FineTuneConfig(train=(data, replace(data, root="b")), val=data, init="x")
    assert differing(config)["train.1.root"] == ("b", "")


def test_counts_are_those_of_the_classes(shapes: Path) -> None:
    config = DataConfig(DatasetKind.voc, str(shapes), "train", ["disc", "square", "cone"])
    train = open_dataset(config)
    val = with_classes(open_dataset(replace(config, split="val")), train.classes, "train")
    found = of_boxes(FineTuneConfig(train=config, val=config, init="net"), train, val, 7)
    assert (found.names, found.train, found.val) == (("disc", "square", "cone"), (4, 4, 0), (3, 3, 0))
    assert (found.epochs, found.init) == (7, "net")
    assert found.facts["train"].endswith(": 4 images")
