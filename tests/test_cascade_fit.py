"""The fit of a cascade on made-up images: what is written, what is chosen, that nothing is computed twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detector import Detector
from detector.checkpoint import load_checkpoint, read_ranges, save_checkpoint
from detector.config import load_config
from detector.data.dataset import DataConfig, DatasetKind
from detector.evaluation.entry import evaluate
from detector.evaluation.truth_files import read_truth
from detector.model_files import CheckpointError, ranges_file
from detector.regions.maps import SharedConfig
from detector.regions.rejection import RejectionLayerConfig
from detector.settings import CascadeConfig, DetectorConfig, SuppressionConfig
from detector.training import cascade, thresholds
from detector.training.cascade import CascadeFitConfig, fit_cascade
from detector.training.thresholds import format_choices
from proposals.errors import UserError
from proposals.settings import ProposalConfig


@pytest.fixture
def config(toy_checkpoint: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CascadeFitConfig:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(thresholds, "REJECTIONS", (0.2, 0.9999))
    monkeypatch.setattr(thresholds, "CASCADES", (CascadeConfig(0.1, 5), CascadeConfig(0.1, 5, 0.7)))
    torch.manual_seed(1)
    shared = replace(load_checkpoint(toy_checkpoint), shared=SharedConfig(pyramid=[96, 128], region=64, grid=4))
    save_checkpoint(tmp_path / "shared.safetensors", shared)
    save_checkpoint(tmp_path / "warped.safetensors", load_checkpoint(toy_checkpoint))
    detector = DetectorConfig(
        models=[str(tmp_path / "shared.safetensors"), str(tmp_path / "warped.safetensors")],
        proposals=ProposalConfig(max_boxes=30),
        suppression=SuppressionConfig(soft_sigma=0.3),
        precision="float32",
    )
    data = [DataConfig(DatasetKind.voc, str(shapes), split, ["square", "disc"]) for split in ("train", "val")]
    layer = RejectionLayerConfig(channels=4, grid=2, hidden=4)
    return CascadeFitConfig(detector, *data, layer=layer, epochs=2, rejection_loss=1.0, cascade_loss=1.0)


@pytest.mark.parametrize("models", [1, 2])
def test_what_else_the_cascade_does_stays(config: CascadeFitConfig, models: int) -> None:
    mirrored = CascadeConfig(threshold=0.3, best=7, mirror=True)
    detector = replace(config.detector, models=config.detector.models[:models], cascade=mirrored)
    fitted = fit_cascade(replace(config, detector=detector), "cpu")
    written = load_config(DetectorConfig, fitted.detector).cascade
    assert written.mirror
    thresholds_of = mirrored if models == 1 else fitted.chosen.cascade
    assert thresholds_of is not None
    assert (written.threshold, written.best, written.near) == (
        thresholds_of.threshold,
        thresholds_of.best,
        thresholds_of.near,
    )


def test_some_images_of_val_are_those_of_a_list_of_them(config: CascadeFitConfig, shapes: Path, tmp_path: Path) -> None:
    ids = (shapes / "ImageSets/Main/val.txt").read_text().split()
    count = len(ids) // 2
    some = fit_cascade(replace(config, name="some", val_images=count), "cpu")
    shutil.copytree(shapes, tmp_path / "listed")
    drawn = sorted(np.random.default_rng(config.seed).permutation(len(ids))[:count].tolist())
    (tmp_path / "listed/ImageSets/Main/few.txt").write_text("".join(f"{ids[index]}\n" for index in drawn))
    listed = replace(config, name="listed", val=replace(config.val, root=str(tmp_path / "listed"), split="few"))
    aps = [[choice.mean_ap for choice in fitted.choices] for fitted in (some, fit_cascade(listed, "cpu"))]
    assert aps[0] == aps[1]
    everything = fit_cascade(replace(config, name="all"), "cpu")
    assert aps[0] != [choice.mean_ap for choice in everything.choices]


def test_what_is_written_is_what_was_chosen(config: CascadeFitConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(config, rejection_loss=0.0, cascade_loss=0.0)
    fitted = fit_cascade(config, "cpu")
    assert [(choice.rejection, choice.cascade) for choice in fitted.choices[:3]] == [
        (0, None),
        (0.2, None),
        (0.9999, None),
    ]
    assert fitted.choices[2].cut == 0
    of_the_cascade = fitted.choices[3:]
    assert {choice.rejection for choice in of_the_cascade} == {fitted.chosen.rejection}
    assert fitted.chosen.mean_ap >= of_the_cascade[0].mean_ap
    allowed = replace(config, name="allowed", rejection_loss=1.0, cascade_loss=1.0)
    assert fit_cascade(allowed, "cpu").chosen.cut == 0
    chosen = load_config(DetectorConfig, fitted.detector)
    assert chosen.cascade == fitted.chosen.cascade
    assert chosen.rejection.weights == str(fitted.layer)

    # The same numbers as a detector of these settings, for every alternative.
    truth = read_truth(config.val)
    for choice in fitted.choices:
        settings = replace(
            chosen,
            models=chosen.models if choice.cascade else chosen.models[:1],
            cascade=choice.cascade or CascadeConfig(),
            rejection=replace(chosen.rejection, threshold=choice.rejection),
            suppression=replace(chosen.suppression, min_score=thresholds.LOWEST),
        )
        detector = Detector.load(settings, device="cpu")
        scored = [detector.score(path) for path in truth.paths]
        found = {name: one.detections() for name, one in zip(truth.image_ids, scored, strict=True)}
        assert evaluate(truth, found).mean_ap == pytest.approx(choice.mean_ap, abs=1e-9)
        assert np.mean([one.counts["regions_cut"] for one in scored]) == choice.cut
        assert np.mean([one.counts.get("regions_warped", 0) for one in scored]) == choice.warped

    # A second call finds all that was computed.
    def fails(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(cascade.np, "savez", fails)
    again = fit_cascade(config, "cpu")
    assert again.choices == fitted.choices
    assert format_choices(again.choices, again.chosen) == (config.folder / "front.txt").read_text().rstrip("\n")


def test_one_model_needs_no_cascade(config: CascadeFitConfig) -> None:
    alone = replace(config, detector=replace(config.detector, models=config.detector.models[:1]))
    fitted = fit_cascade(alone, "cpu")
    assert {choice.cascade for choice in fitted.choices} == {None}
    assert fitted.chosen.rejection == 0.9999  # the loss allowed is everything
    assert load_config(DetectorConfig, fitted.detector).cascade == CascadeConfig()


def test_new_weights_are_scored_anew(config: CascadeFitConfig, toy_checkpoint: Path) -> None:
    before = fit_cascade(config, "cpu")
    path = Path(config.detector.models[0])
    other = load_checkpoint(path)
    with torch.no_grad():
        other.network.fc.weight.mul_(-3)
    save_checkpoint(path, other)
    with pytest.raises(CheckpointError, match="other weights"):
        Detector.load(str(before.detector))
    fit_cascade(config, "cpu")
    Detector.load(str(before.detector))
    assert len(list(config.folder.glob("maps-*"))) == 2


def test_a_first_model_of_warped_regions_has_no_layer(config: CascadeFitConfig) -> None:
    two = config.detector.models[1:] * 2
    fitted = fit_cascade(replace(config, detector=replace(config.detector, models=two)), "cpu")
    assert fitted.layer is None
    assert {choice.rejection for choice in fitted.choices} == {0}
    assert len(fitted.choices) == 4  # the first model alone, the widest cascade and two more
    assert load_config(DetectorConfig, fitted.detector).rejection.weights == ""


def test_weights_without_ranges_get_them(config: CascadeFitConfig) -> None:
    files = [Path(model) for model in config.detector.models]
    assert [read_ranges(file) for file in files] == [None, None]
    fit_cascade(config, "cpu")
    for file in files:
        ranges = read_ranges(file)
        assert ranges is not None
        assert ranges["inception_4e"] > 0
        ranges_file(file).unlink()


def test_an_unreadable_image_is_named(config: CascadeFitConfig, shapes: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(shapes, root)
    (root / "JPEGImages/val1.png").write_bytes(b"no image")
    unread: list[str] = []
    fit_cascade(replace(config, val=replace(config.val, root=str(root))), "cpu", unread)
    assert len(unread) == 1
    assert "val1.png" in unread[0]
    for split in ("val", "train"):
        for file in (root / "JPEGImages").glob(f"{split}*"):
            file.write_bytes(b"no image")
        with pytest.raises(UserError, match=rf"no image of {split} .*{split}\d\.png"):
            fit_cascade(replace(config, **{split: replace(config.val, root=str(root), split=split)}), "cpu")


def test_a_fit_on_lists_is_that_on_their_images(config: CascadeFitConfig, tmp_path: Path) -> None:
    """The list of both splits, against one list in the same folder with the images of both."""
    assert isinstance(config.train, DataConfig)
    root = tmp_path / "joined"
    shutil.copytree(config.train.root, root)
    lists = root / "ImageSets/Main"
    (lists / "both.txt").write_text((lists / "train.txt").read_text() + (lists / "val.txt").read_text())
    both = (replace(config.train, root=str(root)), replace(config.train, root=str(root), split="val"))
    one = replace(config.train, root=str(root), split="both")
    fits = [
        fit_cascade(replace(config, train=data, val=data, name=name), "cpu") for name, data in (("a", both), ("b", one))
    ]
    scores = [[(choice.rejection, choice.cascade, choice.mean_ap) for choice in fit.choices] for fit in fits]
    assert scores[0] == scores[1]
