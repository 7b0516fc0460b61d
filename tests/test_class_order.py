"""Classifiers whose classes stand in different orders work together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detector import Detector, DetectorConfig
from detector.checkpoint import ImageClassifier, RegionClassifier, save_checkpoint
from detector.class_order import in_names_of, in_order_of
from detector.data.dataset import DataConfig, DatasetKind
from detector.data.ground_truth import ClassTable
from detector.model_files import CheckpointError
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention
from detector.regions.warp import RegionConfig
from detector.settings import SuppressionConfig
from detector.training.regions import FineTuneConfig, start_classifier
from proposals.settings import ProposalConfig

ONE = ClassTable(("cat", "dog", "cow"), (None, None, None), (1, 2, 3))
OTHER = ClassTable(("cow", "cat", "dog"), (None, None, None), (0, 1, 2))
NEW = [2, 0, 1]  # where ONE has each class of OTHER


@pytest.fixture(scope="module")
def classifier() -> RegionClassifier:
    torch.manual_seed(1)
    network = GoogLeNet(GoogLeNetConfig(classes=4, width=0.25)).eval()
    network.set_regression(nn.Linear(network.fc.in_features, 12))
    return RegionClassifier(network, InputConvention(), RegionConfig(size=64, context=4), ONE)


@pytest.fixture(scope="module")
def permuted(classifier: RegionClassifier) -> RegionClassifier:
    """The same, written down row by row: what a training with the other order would have learned."""
    network = GoogLeNet(classifier.network.config).eval()
    assert classifier.network.regression is not None
    network.set_regression(nn.Linear(classifier.network.regression.in_features, 12))
    assert network.regression is not None
    network.load_state_dict(classifier.network.state_dict())
    with torch.no_grad():
        for new, old in enumerate(NEW):
            network.fc.weight[new + 1], network.fc.bias[new + 1] = (
                classifier.network.fc.weight[old + 1],
                classifier.network.fc.bias[old + 1],
            )
            weight, bias = classifier.network.regression.weight, classifier.network.regression.bias
            network.regression.weight[4 * new : 4 * new + 4] = weight[4 * old : 4 * old + 4]
            network.regression.bias[4 * new : 4 * new + 4] = bias[4 * old : 4 * old + 4]
    return replace(classifier, network=network, classes=OTHER)


def test_the_outputs_move_with_the_names(classifier: RegionClassifier, permuted: RegionClassifier) -> None:
    moved = in_order_of(classifier, OTHER, ("a", "b"))
    for name, tensor in permuted.network.state_dict().items():
        assert torch.equal(moved.network.state_dict()[name], tensor)
    assert moved.classes == OTHER
    assert classifier.classes == ONE
    assert in_order_of(classifier, ONE, ("a", "b")) is classifier


def test_members_of_an_ensemble_may_be_in_any_order(classifier: RegionClassifier, permuted: RegionClassifier) -> None:
    config = DetectorConfig(
        proposals=ProposalConfig(width=0, max_boxes=9), suppression=SuppressionConfig(min_score=0.0), regression=True
    )
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    alike, mixed = (Detector(members, config)(image) for members in ([classifier] * 2, [classifier, permuted]))
    assert len(alike) > 0
    assert np.array_equal(alike.labels, mixed.labels)
    np.testing.assert_allclose(alike.scores, mixed.scores, atol=1e-6)
    np.testing.assert_allclose(alike.boxes, mixed.boxes, atol=1e-3)


def test_members_of_other_classes_are_refused_by_name(classifier: RegionClassifier) -> None:
    other = replace(classifier, classes=ClassTable(("cat", "dog", "horse"), (None, None, None), (1, 2, 3)))
    with pytest.raises(CheckpointError, match=r"second.* lacks cow; .*first.* lacks horse"):
        Detector([classifier, other], DetectorConfig(models=["first", "second"]))


def test_training_goes_on_from_a_classifier_in_another_order(
    tmp_path: Path, classifier: RegionClassifier, permuted: RegionClassifier
) -> None:
    kept = classifier.network.regression
    classifier.network.set_regression(None)
    save_checkpoint(tmp_path / "init.safetensors", classifier)
    classifier.network.set_regression(kept)
    data = DataConfig(DatasetKind.voc, ".")
    config = FineTuneConfig(
        train=data, val=data, init=str(tmp_path / "init.safetensors"), linear_batches=0, regions=classifier.regions
    )
    started = start_classifier(config, OTHER)
    assert torch.equal(started.network.fc.weight, permuted.network.fc.weight)
    assert started.classes == OTHER


def test_classifiers_of_whole_images_meet_by_name() -> None:
    torch.manual_seed(0)
    network = GoogLeNet(GoogLeNetConfig(classes=3, width=0.25)).eval()
    classifier = ImageClassifier(network, InputConvention(), classes=("cat", "dog", "cafe\u0301"))
    moved = in_names_of(classifier, ("caf\u00e9", "cat", "dog"), ("a", "b"))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(moved.network(x), network(x)[:, [2, 0, 1]])
    assert in_names_of(classifier, classifier.classes, ("a", "b")) is classifier
    nameless = replace(classifier, classes=())
    assert in_names_of(nameless, ("x", "y", "z"), ("a", "b")) is nameless
    for classes, message in ((("cat", "dog", "cow"), "a lacks cow; b lacks caf"), (("cat", "dog"), "b lacks")):
        with pytest.raises(CheckpointError, match=message):
            in_names_of(classifier, classes, ("a", "b"))
    with pytest.raises(CheckpointError, match="a has 3 classes, b 2"):
        in_names_of(nameless, ("x", "y"), ("a", "b"))
