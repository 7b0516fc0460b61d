"""The lists that torchmetrics takes give the same twelve numbers, once its recalls are in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detector import Evaluator

detection = pytest.importorskip("torchmetrics.detection")

NUMBERS = {
    **{"map": "AP", "map_50": "AP50", "map_75": "AP75"},
    **{f"map_{size}": f"AP_{size}" for size in ("small", "medium", "large")},
    **{f"mar_{limit}": f"AR{limit}" for limit in (1, 10, 100)},
    **{f"mar_{size}": f"AR_{size}" for size in ("small", "medium", "large")},
}


def boxes_of(random: np.random.Generator, count: int) -> np.ndarray:
    corner = random.uniform(0, 200, (count, 2))
    return np.concatenate([corner, corner + random.uniform(3, 150, (count, 2))], axis=1)


def image(random: np.random.Generator, seed: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The target and the predictions of an image, some with ties, crowds or stated areas."""
    count = int(random.integers(1, 7))
    boxes = boxes_of(random, count)
    found = np.concatenate([np.repeat(boxes, 2, axis=0) + random.normal(0, 8, (2 * count, 4)), boxes_of(random, 3)])
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    labels = random.integers(0, 3, count)
    target = {"boxes": torch.tensor(boxes), "labels": torch.tensor(labels)}
    if seed % 3 == 0:
        target["iscrowd"] = torch.tensor(random.random(count) < 0.2).long()
    if seed % 5 == 0:
        target["area"] = torch.tensor((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * random.uniform(0.3, 1, count))
    scores = random.integers(1, 20, len(found)) / 20 if seed % 2 else random.random(len(found))
    guesses = np.concatenate([np.repeat(labels, 2), random.integers(0, 3, 3)])
    return target, {"boxes": torch.tensor(found), "labels": torch.tensor(guesses), "scores": torch.tensor(scores)}


@pytest.mark.parametrize("seed", range(20))
def test_twelve_numbers(seed: int) -> None:
    random = np.random.default_rng(seed)
    targets, predictions = zip(*(image(random, seed) for _ in range(4)), strict=True)
    metric = detection.MeanAveragePrecision(rec_thresholds=np.linspace(0, 1, 101).tolist())
    metric.update(list(predictions), list(targets))
    theirs = metric.compute()
    evaluator = Evaluator(["a", "b", "c"], "coco")
    evaluator.update(range(4), targets, predictions)
    ours = evaluator.result().summary
    for name, key in NUMBERS.items():
        value = ours[key]
        assert float(theirs[name]) == pytest.approx(-1 if value is None else value, abs=1e-6), name
