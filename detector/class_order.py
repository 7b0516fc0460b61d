"""Classifiers that were trained on the same classes in another order -> in one order.

Classes meet by WordNet id or name (ClassTable.labels_in), so members of an ensemble, a classifier to go on from and a
data set need not number them alike.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from detector.checkpoint import CheckpointError, RegionClassifier
from detector.data.ground_truth import ClassTable, listed


def in_order_of(classifier: RegionClassifier, classes: ClassTable, names: tuple[str, str]) -> RegionClassifier:
    """A classifier whose outputs stand in the order of a table; itself where they do already.

    Args:
        classifier: stays as it is.
        classes: the same classes in any order.
        names: of the classifier and of the table's owner, for the message.

    Raises:
        CheckpointError: one has classes that the other does not have.
    """
    labels = classes.labels_in(classifier.classes).tolist()
    foreign = [classifier.classes.names[label] for label in sorted(set(range(len(classifier.classes))) - {*labels})]
    absent = [name for name, label in zip(classes.names, labels, strict=True) if label < 0]
    if foreign or absent:
        lacks = [f"{names[0]} lacks {listed(absent)}"] * bool(absent) + [f"{names[1]} lacks {listed(foreign)}"] * bool(
            foreign
        )
        raise CheckpointError(
            f"{names[0]} tells {len(classifier.classes)} classes apart that are not the {len(classes)} of {names[1]}: "
            f"{'; '.join(lacks)}"
        )
    if labels == list(range(len(labels))):
        return classifier
    network = copy.deepcopy(classifier.network)
    _permute(network.fc, [0, *(label + 1 for label in labels)])  # 0 is background
    if network.regression is not None:
        _permute(network.regression, [4 * label + side for label in labels for side in range(4)])
    return replace(classifier, network=network, classes=classes)


def _permute(layer: nn.Linear, rows: Sequence[int]) -> None:
    with torch.no_grad():
        layer.weight.copy_(layer.weight[list(rows)].clone())
        layer.bias.copy_(layer.bias[list(rows)].clone())
