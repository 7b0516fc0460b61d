"""What the journal of an evaluation compares: what decides its numbers goes on or is refused, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from detector.checkpoint import RegionClassifier, save_checkpoint
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import ClassTable
from detector.evaluation import ResultsError
from detector.experiments.detection_run import run_detector
from detector.experiments.evaluation_run import EvaluationConfig
from detector.extraction import dataset_proposals
from detector.multibox import MultiBoxModel, save_multibox
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention
from detector.pipeline import ScoredImage
from detector.regions.warp import RegionConfig
from detector.settings import CascadeConfig, DetectorConfig, SuppressionConfig
from proposals.locking import Lock
from proposals.multibox.head import MultiBox, MultiBoxConfig, MultiBoxHead
from proposals.settings import MultiBoxSettings, ProposalConfig

SHAPES = ["square", "disc"]
CONVENTION = InputConvention(std=(60.0, 60.0, 60.0))


def narrow(seed: int) -> GoogLeNet:
    torch.manual_seed(seed)
    return GoogLeNet(GoogLeNetConfig(classes=3, width=0.25, initialisation="xavier")).eval()


def save_classifier(path: Path, seed: int = 0) -> None:
    classes = ClassTable(tuple(SHAPES), (None, None), (1, 2))
    save_checkpoint(path, RegionClassifier(narrow(seed), CONVENTION, RegionConfig(64, 4), classes))


def save_boxes(path: Path, seed: int = 0) -> None:
    network = narrow(seed)
    priors = torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.3, 0.3, 0.9, 0.9], [0.0, 0.0, 1.0, 1.0]])
    head = MultiBoxHead(network.fc.in_features, priors, MultiBoxConfig(3, 8))
    save_multibox(path, MultiBoxModel(MultiBox(network.trunk, head).eval(), network.config, CONVENTION, 64))


@pytest.fixture
def config(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvaluationConfig:
    """An evaluation of three images with four proposals each, done once."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shapes, tmp_path / "data")
    save_classifier(tmp_path / "net.safetensors")
    save_boxes(tmp_path / "boxes.safetensors")
    proposals = ProposalConfig(width=0, min_width=8, max_boxes=4, multibox=MultiBoxSettings("boxes.safetensors"))
    result = EvaluationConfig(
        data=DataConfig(DatasetKind.voc, "data", "val", SHAPES),
        name="toy",
        detector=DetectorConfig(["net.safetensors"], proposals, precision="float32", backend="torch"),
        cache="cache",
    )
    run(result)
    return result


def run(config: EvaluationConfig) -> list[str]:
    """The images that a run did, not those it found done."""
    done: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        whole = ScoredImage.detections
        patch.setattr(ScoredImage, "detections", lambda self: done.append("") or whole(self))
        run_detector(config, "cpu")
    return done


def of_detector(**changes: Any) -> Callable[[EvaluationConfig], EvaluationConfig]:
    return lambda config: replace(config, detector=replace(config.detector, **changes))


def move_data(config: EvaluationConfig) -> EvaluationConfig:
    shutil.move("data", "elsewhere")
    return replace(config, data=replace(config.data, root=str(Path("elsewhere").resolve())))


def move_weights(config: EvaluationConfig) -> EvaluationConfig:
    shutil.move("net.safetensors", "moved.safetensors")
    shutil.move("boxes.safetensors", "moved_boxes.safetensors")
    settings = replace(config.detector.proposals, multibox=MultiBoxSettings("moved_boxes.safetensors"))
    return of_detector(models=["moved.safetensors"], proposals=settings)(config)


HARMLESS: dict[str, Callable[[EvaluationConfig], EvaluationConfig]] = {
    "nothing": lambda config: config,
    "the data set moved": move_data,
    "the weights moved": move_weights,
    "batch": of_detector(batch=3),
    "backend": of_detector(backend="onnxruntime"),
    "resamples": lambda config: replace(config, resamples=3, score=0.4),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_decides_no_number_goes_on(
    config: EvaluationConfig, change: Callable[[EvaluationConfig], EvaluationConfig]
) -> None:
    assert run(change(config)) == []


def other_pixels(config: EvaluationConfig) -> EvaluationConfig:
    PIL.Image.fromarray(np.full((80, 96, 3), 9, np.uint8)).save("data/JPEGImages/val1.png")
    return config


def other_boxes(config: EvaluationConfig) -> EvaluationConfig:
    path = Path("data/Annotations/val1.xml")
    path.write_text(path.read_text().replace("<name>disc</name>", "<name>square</name>"))
    return config


def other_weights(config: EvaluationConfig) -> EvaluationConfig:
    save_classifier(Path("net.safetensors"), seed=1)
    return config


def other_multibox(config: EvaluationConfig) -> EvaluationConfig:
    save_boxes(Path("boxes.safetensors"), seed=1)
    return config


DECISIVE: dict[str, Callable[[EvaluationConfig], EvaluationConfig]] = {
    "a photograph": other_pixels,
    "a label": other_boxes,
    "the classifier": other_weights,
    "MultiBox's weights": other_multibox,
    "mirror": of_detector(mirror=True),
    "cascade.mirror": of_detector(cascade=CascadeConfig(0.5, mirror=True)),
    "voting": of_detector(suppression=SuppressionConfig(vote=0.5)),
    "precision": of_detector(precision="bfloat16"),
    "max_boxes": lambda config: of_detector(proposals=replace(config.detector.proposals, max_boxes=3))(config),
}


@pytest.mark.parametrize("change", DECISIVE.values(), ids=DECISIVE)
def test_what_decides_numbers_is_refused_once(
    config: EvaluationConfig, change: Callable[[EvaluationConfig], EvaluationConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before proposals are computed; deleting the files that the message names is all it takes."""
    changed = change(config)
    with monkeypatch.context() as patch:
        patch.setattr(
            "detector.experiments.detection_run.dataset_proposals",
            lambda *_, **__: pytest.fail("proposals were computed"),
        )
        with pytest.raises(ResultsError) as caught:
            run(changed)
    files = [*config.folder.glob("*.jsonl")]
    assert len(files) == 5
    for file in files:
        assert str(file) in str(caught.value)
        file.unlink()
    assert len(run(changed)) == 3


def test_an_image_that_was_mended_is_added(config: EvaluationConfig) -> None:
    """One that could not be read has no line; the same command does it, and it alone, once it can be."""
    for file in config.folder.glob("*.jsonl"):
        file.unlink()
    path = Path("data/JPEGImages/val1.png")
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    assert len(run(config)) == 2
    assert run(config) == []
    path.write_bytes(whole)
    assert len(run(config)) == 1
    assert run(config) == []
    other_pixels(config)
    with pytest.raises(ResultsError, match=r"data\.images\.val1"):
        run(config)


def test_two_runs_of_one_name(config: EvaluationConfig) -> None:
    lock = Lock(config.folder / ".detections.jsonl.lock")
    with pytest.raises(ResultsError, match=r"detections\.jsonl"):
        run(config)
    lock.release()
    assert run(config) == []


def test_two_trees_of_equal_names_have_proposals_of_their_own(shapes: Path, tmp_path: Path) -> None:
    """Equal names, sizes and even lengths of the files; in one cache."""
    roots = [tmp_path / "one", tmp_path / "two"]
    for number, root in enumerate(roots):
        shutil.copytree(shapes, root)
        for path in (root / "JPEGImages").glob("*.png"):
            image = np.zeros((80, 96, 3), np.uint8)
            image[10:40, 10 + 30 * number : 40 + 30 * number] = 255
            path.unlink()
            PIL.Image.fromarray(image).save(path.with_suffix(".bmp"))
    found = []
    for root in (*roots, roots[0]):
        dataset = open_dataset(DataConfig(DatasetKind.voc, str(root), "val", SHAPES))
        store = dataset_proposals(dataset, ProposalConfig(width=0, min_width=8), tmp_path / "cache", 1)
        found.append(store.named("val0").boxes)
        assert np.array_equal(store.get("val0", dataset.records[0].path.read_bytes()).boxes, store.named("val0").boxes)
    assert np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])
    shutil.move(roots[0], tmp_path / "moved")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(tmp_path / "moved"), "val", SHAPES))
    dataset_proposals(dataset, ProposalConfig(width=0, min_width=8), tmp_path / "cache", 1)
    assert len(list((tmp_path / "cache").iterdir())) == 2
