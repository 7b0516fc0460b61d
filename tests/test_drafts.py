"""A first config: parts are chosen, images split, minutes turned into epochs, and only own files replaced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from narrow import shared_classifier

from detector.checkpoint import save_checkpoint
from detector.config import load_config
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import DataError
from detector.doctor.coverage import measure_reach
from detector.drafts.budget import Costs, plan_images, plan_training
from detector.drafts.choice import Choice, choose_parts
from detector.drafts.files import DraftError, check_output, signed, write_draft
from detector.drafts.measuring import measure_regions
from detector.drafts.split import divided, split_images
from detector.drafts.text import Heading, images_per_batch, images_text, regions_text, section
from detector.regions.maps import SharedConfig
from detector.training.images import ImageTrainingConfig
from detector.training.regions import FineTuneConfig
from proposals.settings import ProposalConfig

# ---- parts


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["train", "val", "test"], ("train", "val", "test")),
        (["train", "val", "trainval", "train2", "val100", "test200", "test"], ("train", "val", "test")),
        (["train2017", "val2017"], ("train2017", "val2017", None)),
        (["trainval", "test"], ("trainval", None, "test")),
        (["train", "test"], ("train", None, "test")),
        ([""], ("", None, None)),
        (["export"], ("export", None, None)),
    ],
)
def test_parts_by_their_names(names: list[str], wanted: tuple[str, str | None, str | None]) -> None:
    assert choose_parts(names) == Choice(*wanted)


def test_several_parts_of_other_names_are_refused() -> None:
    with pytest.raises(DataError, match="the parts are north, south, and none is called train"):
        choose_parts(["north", "south"])


# ---- split


@pytest.mark.parametrize("seed", range(8))
def test_a_split_keeps_groups_and_gives_both_parts_each_class(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = 200
    groups = np.sort(generator.integers(0, 150, count))
    labels = generator.choice(6, count, p=[0.6, 0.3, 0.06, 0.02, 0.01, 0.01])  # one class an image
    labels = labels[np.searchsorted(groups, groups)]  # and a group
    present = np.eye(6, dtype=bool)[labels]
    for_val = split_images(present, groups, 0.2, seed)
    assert all(len(set(for_val[groups == group].tolist())) == 1 for group in set(groups.tolist()))
    assert 0.12 * count <= for_val.sum() <= 0.28 * count
    for label in set(labels.tolist()):
        parts = set(for_val[labels == label].tolist())
        assert parts == ({True, False} if len(set(groups[labels == label].tolist())) > 1 else {False})
    assert (split_images(present, groups, 0.2, seed) == for_val).all()


def test_another_seed_splits_otherwise() -> None:
    present, groups = np.ones((50, 1), bool), np.arange(50)
    one, other = (split_images(present, groups, 0.2, seed) for seed in (0, 1))
    assert one.sum() == other.sum() == 10
    assert (one != other).any()


def test_images_of_one_class_and_without_any_are_both_shared() -> None:
    present = np.zeros((100, 2), bool)
    present[:50, 0] = True
    for_val = split_images(present, np.arange(100), 0.2, 0)
    assert for_val[:50].sum() == 10
    assert for_val[50:].sum() == 10


def test_two_images_are_one_and_one() -> None:
    assert split_images(np.ones((2, 1), bool), np.arange(2), 0.2, 0).sum() == 1
    assert split_images(np.eye(2, dtype=bool), np.arange(2), 0.2, 0).sum() == 1
    assert split_images(np.zeros((2, 0), bool), np.arange(2), 0.2, 0).sum() == 1
    with pytest.raises(ValueError, match="cannot be split"):
        split_images(np.ones((2, 1), bool), np.zeros(2, np.int64), 0.2, 0)
    with pytest.raises(ValueError, match=r"must be in \(0, 1\), not 1"):
        split_images(np.ones((2, 1), bool), np.arange(2), 1, 0)


def test_a_camera_that_stands_still_is_divided_in_runs() -> None:
    names = [f"{place:03}" for place in np.random.default_rng(0).permutation(50)]
    groups = divided(np.zeros(50, np.int64), names)
    for group in set(groups.tolist()):
        members = sorted(int(names[place]) for place in np.flatnonzero(groups == group))
        assert len(members) == 5
        assert members == list(range(members[0], members[0] + 5))
    few = np.array([0, 0, 1, *range(2, 40)])
    assert (divided(few, [str(place) for place in range(41)]) == few).all()


# ---- budget

COSTS = Costs(proposal=0.3, batch=1.0, linear=0.5, detection=0.6)


@pytest.mark.parametrize("minutes", [10, 20, 45, 120, 600])
@pytest.mark.parametrize("factor", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("images", [40, 300, 1500])
def test_a_plan_fits_its_budget(minutes: float, factor: float, images: int) -> None:
    costs = Costs(*(factor * value for value in vars(COSTS).values()))
    plan = plan_training(minutes, costs, train=images, val=images // 4, per_batch=4)
    assert plan.seconds == pytest.approx(
        costs.proposal * (images + images // 4)
        + plan.linear_batches * costs.linear
        + plan.epochs * plan.batches * costs.batch
        + (1 + -(-plan.epochs // plan.ap_every)) * plan.ap_images * costs.detection
    )
    assert plan.fits == (plan.seconds <= 60 * minutes)
    assert plan.fits or minutes <= 20
    assert plan.epochs >= 3
    assert plan.batches >= 10
    assert min(10, images // 4) <= plan.ap_images <= images // 4
    assert plan.ap_every == 1 or plan.ap_images < 60
    steps = plan.epochs * plan.batches
    assert steps * 4 >= 0.9 * min(40 * images, 4 * 0.5 * (60 * minutes - plan.proposals) / costs.batch) or not plan.fits


def test_more_minutes_are_more_batches() -> None:
    steps = []
    for minutes in (10, 20, 45, 90):
        plan = plan_training(minutes, COSTS, train=1000, val=100, per_batch=4)
        steps.append(plan.epochs * plan.batches)
    assert steps == sorted(set(steps))


def test_a_budget_below_the_proposals_says_so() -> None:
    plan = plan_training(5, COSTS, train=5000, val=500, per_batch=4)
    assert not plan.fits
    assert (plan.epochs, plan.batches) == (3, 10)


def test_epochs_of_whole_images() -> None:
    epochs, seconds = plan_images(10, 1.0, 20.0, train=320, size=32)
    assert (epochs, seconds) == (19, 19 * 30.0)
    assert plan_images(1, 10.0, 20.0, train=320, size=32)[0] == 3
    assert plan_images(1000, 0.1, 1.0, train=320, size=32)[0] == 40


def test_costs_are_measured_on_a_training_of_its_own(shapes: Path, tmp_path: Path) -> None:
    weights = tmp_path / "toy.safetensors"
    shared = SharedConfig(pyramid=[96, 192], region=64, grid=14)
    save_checkpoint(weights, shared_classifier(shared))
    data = DataConfig(DatasetKind.voc, str(shapes), split="train", classes=["square", "disc"])
    dataset = open_dataset(data)
    config = FineTuneConfig(
        train=data,
        val=data,
        init=str(weights),
        mode="shared",
        shared=shared,
        images=2,
        batch=32,
        foreground=8,
        workers=0,
        train_from="inception_5a",
    )
    reach, boxes = measure_reach(dataset, dataset.records, ProposalConfig(max_boxes=30))
    assert reach.images == len(boxes) == 4
    assert len(reach.overlaps) == 8
    costs = measure_regions(config, dataset, dataset.records, boxes, reach.seconds, torch.device("cpu"))
    assert costs.proposal == reach.seconds
    assert all(0 < value < 60 for value in vars(costs).values())


# ---- the text


def test_the_config_loads_and_states_what_was_asked(tmp_path: Path) -> None:
    train = DataConfig(DatasetKind.yolo, "2024", split="1e3", classes=["no", "010", "traffic light", "a: b", "Größe"])
    val = replace(train, split="val", image_list="cells_val.txt")
    plan = plan_training(45, COSTS, train=300, val=60, per_batch=4)
    heading = Heading("A detector", "python tools/train_classifier.py --config x.yaml", ["  a  b"], "45 minutes")
    for gpu in (False, True):
        text = regions_text(heading, "2024", train, val, images=4, gpu=gpu, plan=plan)
        (tmp_path / "x.yaml").write_text(signed(text), encoding="utf-8")
        config = load_config(FineTuneConfig, tmp_path / "x.yaml")
        assert (config.train, config.val, config.name) == (train, val, "2024")
        assert (config.epochs, config.batches_per_epoch, config.ap_images) == (
            plan.epochs,
            plan.batches,
            plan.ap_images,
        )
        assert config.train_from == ("conv1" if gpu else "inception_5a")
        assert config.patience
        assert max(map(len, text.splitlines())) <= 150
    for images in (1, 2, 4):
        (tmp_path / "x.yaml").write_text(regions_text(heading, "x", train, val, images=images, gpu=False, plan=None))
        assert load_config(FineTuneConfig, tmp_path / "x.yaml").images == images
    assert [images_per_batch(count) for count in (0, 1, 2, 3, 4, 100)] == [1, 1, 2, 2, 4, 4]


def test_the_config_of_whole_images_loads(tmp_path: Path) -> None:
    from detector.data.labelled_images import ImagesConfig

    train, val = ImagesConfig("photos", split="train"), ImagesConfig("photos", split="val")
    text = images_text(Heading("t", "c", []), "photos", train, val, batch=32, epochs=7)
    (tmp_path / "x.yaml").write_text(text)
    config = load_config(ImageTrainingConfig, tmp_path / "x.yaml")
    assert (config.train, config.val, config.epochs) == (train, val, 7)


def test_a_section_states_what_differs() -> None:
    assert section(DataConfig(DatasetKind.voc, "a b")) == "{kind: voc, root: a b}"
    assert yaml.safe_load(section(DataConfig(DatasetKind.coco, "x", one_based=False)))["one_based"] is False


# ---- files


def test_only_what_was_written_here_and_not_edited_is_replaced(tmp_path: Path) -> None:
    config, names = tmp_path / "cells.yaml", tmp_path / "cells_val.txt"
    check_output(config, {names: "a\n"})
    write_draft(config, f"image_list: {names}\n", {names: "a\n"})
    check_output(config, {names: "b\n"})
    write_draft(config, f"image_list: {names}\nepochs: 3\n", {names: "b\n"})
    assert names.read_text() == "b\n"

    config.write_text(config.read_text().replace("epochs: 3", "epochs: 4"))
    with pytest.raises(DraftError, match=r"cells\.yaml: exists, and was not written by new-config or was edited since"):
        check_output(config, {})
    config.unlink()
    check_output(config, {names: "b\n"})  # the same list again
    with pytest.raises(DraftError, match=r"cells_val\.txt: exists and belongs to no config"):
        check_output(config, {names: "c\n"})


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DraftError, match=r"there is no folder .*nowhere; make it first"):
        check_output(tmp_path / "nowhere/x.yaml", {})
    (tmp_path / "x.yaml").mkdir()
    with pytest.raises(DraftError, match="a folder; name a file"):
        check_output(tmp_path / "x.yaml", {})
    (tmp_path / "y.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(DraftError, match="was not written by new-config"):
        check_output(tmp_path / "y.yaml", {})
