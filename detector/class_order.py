"""Bring classifiers that were trained on the same classes in another order into one order.

Classes are matched by WordNet id or name (ClassTable.labels_in). Members of an ensemble, the classifier that a training
begins with and its data set may therefore number them differently.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from detector.checkpoint import ImageClassifier, RegionClassifier
from detector.data.ground_truth import ClassTable, composed, listed
from detector.model_files import CheckpointError


def in_order_of(classifier: RegionClassifier, classes: ClassTable, names: tuple[str, str]) -> RegionClassifier:
    """Reorder a classifier's outputs to a table of classes; it is returned itself if they already agree.

    Args:
        classifier: The classifier; it is not changed.
        classes: The same classes in any order.
        names: Names of the classifier and of the owner of the table, for messages.

    Raises:
        CheckpointError: one has classes that the other does not have.
    """
    labels = classes.labels_in(classifier.classes).tolist()
    foreign = [classifier.classes.names[label] for label in sorted(set(range(len(classifier.classes))) - {*labels})]
    absent = [name for name, label in zip(classes.names, labels, strict=True) if label < 0]
    if foreign or absent:
        raise _other_classes(names, absent, foreign)
    if labels == list(range(len(labels))):
        return classifier
    network = copy.deepcopy(classifier.network)
    _permute(network.fc, [0, *(label + 1 for label in labels)])  # 0 is background
    if network.regression is not None:
        _permute(network.regression, [4 * label + side for label in labels for side in range(4)])
    return replace(classifier, network=network, classes=classes)


def in_names_of(classifier: ImageClassifier, classes: Sequence[str], names: tuple[str, str]) -> ImageClassifier:
    """Reorder an image classifier's outputs to a list of names; it is returned itself if they already agree.

    Args:
        classifier: The classifier; it is not changed. One without names is returned itself.
        classes: The same names in any order; empty if their owner states none.
        names: Names of the classifier and of the owner of the classes, for messages.

    Raises:
        CheckpointError: one has classes that the other does not have.
    """
    count = classifier.network.config.classes
    if not classifier.classes or not classes:
        if classes and len(classes) != count:
            raise CheckpointError(f"{names[0]} has {count} classes, {names[1]} {len(classes)}")
        return classifier
    own = {composed(name): label for label, name in enumerate(classifier.classes)}
    wanted = [composed(name) for name in classes]
    absent = [name for name in wanted if name not in own]
    foreign = [name for name in own if name not in set(wanted)]
    if absent or foreign:
        raise _other_classes(names, absent, foreign)
    labels = [own[name] for name in wanted]
    if labels == list(range(count)):
        return classifier
    network = copy.deepcopy(classifier.network)
    _permute(network.fc, labels)
    return replace(classifier, network=network, classes=tuple(classes))


def _other_classes(names: tuple[str, str], absent: Sequence[str], foreign: Sequence[str]) -> CheckpointError:
    sides = zip(names, (absent, foreign), strict=True)
    lacks = "; ".join(f"{name} lacks {listed(missing)}" for name, missing in sides if missing)
    return CheckpointError(f"{names[0]} and {names[1]} have different classes: {lacks}")


def _permute(layer: nn.Linear, rows: list[int]) -> None:
    """Reorder the outputs of a layer."""
    with torch.no_grad():
        layer.weight.copy_(layer.weight[rows])  # indexing with a list copies
        layer.bias.copy_(layer.bias[rows])
