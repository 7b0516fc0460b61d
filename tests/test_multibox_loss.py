"""The loss of MultiBox: a case worked by hand, and the matching against all possible assignments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from math import exp, inf, log, nan

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from proposals.multibox.loss import ALPHA, match_to_priors, multibox_loss

Floats = NDArray[np.float64]

UNIT = 0.01  # of the image: what an offset of 1 is


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def random_boxes(count: int, seed: int, *, least: float = 0.05) -> Tensor:
    """[count, 4] shares of the image, float64, corners in order."""
    generator = np.random.default_rng(seed)
    sides = generator.uniform(least, 0.5, (count, 2))
    corners = generator.uniform(0, 1 - sides)
    return torch.from_numpy(np.concatenate([corners, corners + sides], axis=1))


def offsets_to(boxes: Tensor, priors: Tensor) -> Tensor:
    """The offsets that decode to these boxes."""
    return (boxes - priors) / UNIT


def squared(first: Tensor, second: Tensor) -> Floats:
    """Squared corner distances of every pair, by the definition; [P, 4], [M, 4] -> [P, M]."""
    result: Floats = ((first.double().numpy()[:, None] - second.double().numpy()[None]) ** 2).sum(axis=2)
    return result


def cheapest(cost: Floats) -> tuple[int, ...]:
    """Of all ways to give each column a row of its own, the one of least cost; [P, M], M at most P."""
    rows, columns = cost.shape
    return min(
        permutations(range(rows), columns),
        key=lambda choice: sum(cost[row, column] for column, row in enumerate(choice)),
    )


def slow_loss(boxes: Tensor, logits: Tensor, objects: Tensor, claims: Mapping[int, int], alpha: float = ALPHA) -> float:
    """The loss of one image, term by term; claims: prediction -> object."""
    total = 0.0
    for prediction, (box, logit) in enumerate(zip(boxes.tolist(), logits.tolist(), strict=True)):
        confidence = 1 / (1 + exp(-logit))
        if prediction in claims:
            wanted = objects[claims[prediction]].tolist()
            distance = sum(((ours - its) / UNIT) ** 2 for ours, its in zip(box, wanted, strict=True))
            total += -log(confidence) + alpha / 2 * distance
        else:
            total += -log(1 - confidence)
    return total


def claims_of(positions: Tensor) -> dict[int, int]:
    """Prediction -> object; that no prediction is claimed twice is checked on the way."""
    claims = {position: number for number, position in enumerate(positions.tolist()) if position >= 0}
    assert len(claims) == int((positions >= 0).sum())
    return claims


# ---- by hand

BOXES = torch.tensor([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], dtype=torch.float64)
CONFIDENCES = torch.tensor([0.6, 0.3], dtype=torch.float64)
OBJECT = torch.tensor([[0, 0, 0.4, 0.4]], dtype=torch.float64)
ALPHA_OF_SHARES = 0.3 * UNIT**2  # 0.3 on corners in shares, where the code's are in units


def by_hand(priors: Tensor) -> float:
    offsets = offsets_to(BOXES, priors)
    loss = multibox_loss(offsets[None], torch.logit(CONFIDENCES)[None], priors, [OBJECT], alpha=ALPHA_OF_SHARES)
    return float(loss)


def test_a_case_worked_by_hand() -> None:
    """|l - g|² is 0.02 of the first prediction and 1.22 of the second; the nearer prior decides which counts."""
    assert by_hand(BOXES) == pytest.approx(0.3 / 2 * 0.02 - log(0.6) - log(1 - 0.3))
    assert by_hand(BOXES) == pytest.approx(0.003 + 0.5108 + 0.3567, abs=1e-4)
    assert by_hand(BOXES.flip(0)) == pytest.approx(0.3 / 2 * 1.22 - log(0.3) - log(1 - 0.6))
    assert by_hand(BOXES.flip(0)) == pytest.approx(2.3033, abs=1e-4)


# ---- the loss


def test_loss_is_the_sum_of_its_terms() -> None:
    for seed in range(10):
        priors, boxes, objects = random_boxes(6, seed), random_boxes(6, seed + 50), random_boxes(3, seed + 100)
        logits = torch.from_numpy(np.random.default_rng(seed).normal(size=6))
        cost = squared(priors, objects)
        claims = {row: column for column, row in enumerate(cheapest(cost))}
        expected = slow_loss(boxes, logits, objects, claims)
        loss = multibox_loss(offsets_to(boxes, priors)[None], logits[None], priors, [objects])
        assert float(loss) == pytest.approx(expected)


def test_loss_is_the_mean_over_the_images() -> None:
    priors = random_boxes(7, seed=0).float()
    offsets, logits = torch.randn(4, 7, 4), torch.randn(4, 7)
    objects = [random_boxes(count, seed=count).float() for count in (2, 0, 7, 9)]
    alone = [float(multibox_loss(offsets[[row]], logits[[row]], priors, [objects[row]])) for row in range(4)]
    together = multibox_loss(offsets, logits, priors, objects)
    assert together.shape == ()
    assert float(together) == pytest.approx(sum(alone) / 4)


def test_without_objects_every_confidence_is_trained_towards_0() -> None:
    logits = torch.tensor([[-2.0, 0.0, 3.0]], dtype=torch.float64)
    offsets = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    nothing = torch.zeros(0, 4, dtype=torch.float64)
    loss = multibox_loss(offsets, logits, random_boxes(3, seed=0), [nothing])
    assert loss.item() == pytest.approx(sum(-log(1 - 1 / (1 + exp(-logit))) for logit in (-2, 0, 3)))
    loss.backward()
    assert offsets.grad is not None
    assert (offsets.grad == 0).all()


def test_only_matched_boxes_have_a_location_gradient() -> None:
    """The gradient is α (l - g) / N where matched, else 0; (sigmoid - matched) / N for the confidence."""
    alpha, images = 0.7, 3
    priors = random_boxes(6, seed=1)
    boxes = torch.stack([random_boxes(6, seed) for seed in (10, 11, 12)])
    logits = torch.randn(images, 6, dtype=torch.float64, requires_grad=True)
    offsets = offsets_to(boxes, priors).requires_grad_()
    objects = [random_boxes(3, seed=20), torch.zeros(0, 4, dtype=torch.float64), random_boxes(1, seed=21)]
    multibox_loss(offsets, logits, priors, objects, alpha=alpha).backward()

    pull, doubt = torch.zeros_like(boxes), torch.sigmoid(logits.detach())
    for image in (0, 2):
        cost = squared(priors, objects[image])
        for column, row in enumerate(cheapest(cost)):
            pull[image, row] = alpha * (boxes[image, row] - objects[image][column]) / UNIT
            doubt[image, row] -= 1
    assert offsets.grad is not None
    assert logits.grad is not None
    assert (offsets.grad[pull == 0] == 0).all()
    assert (pull != 0).any(dim=2).sum() == 4
    assert offsets.grad.numpy() == pytest.approx(pull.numpy() / images)
    assert logits.grad.numpy() == pytest.approx(doubt.numpy() / images)


def test_gradient_equals_the_numerical_one() -> None:
    priors, objects = random_boxes(4, seed=3), [random_boxes(2, seed=4), random_boxes(1, seed=5)]
    offsets = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def loss(offsets: Tensor, logits: Tensor) -> Tensor:
        return multibox_loss(offsets, logits, priors, objects)

    assert torch.autograd.gradcheck(loss, (offsets, logits))


def test_confidences_of_almost_0_and_1() -> None:
    """At logits of ±100 a confidence rounds to 0 or 1: right ones still cost 0, wrong ones 100."""
    priors = random_boxes(4, seed=0).float()
    objects = priors[:2]
    for logits, expected in (
        ([100.0, 100.0, -100.0, -100.0], 0),
        ([-100.0, -100.0, -100.0, -100.0], 200),
        ([100.0, 100.0, 100.0, 100.0], 200),
    ):
        offsets = torch.zeros(1, 4, 4, requires_grad=True)
        confidences = torch.tensor([logits], requires_grad=True)
        loss = multibox_loss(offsets, confidences, priors, [objects])
        assert loss.item() == pytest.approx(expected, abs=1e-3)
        loss.backward()
        assert offsets.grad is not None
        assert confidences.grad is not None
        assert torch.isfinite(offsets.grad).all()
        assert torch.isfinite(confidences.grad).all()


@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("which", ["every offset", "one logit", "every logit", "everything"])
def test_predictions_that_are_not_finite_give_a_loss_that_is_not_finite(value: float, which: str) -> None:
    """Training stops at such a loss with a message of its own."""
    priors = random_boxes(5, seed=0).float()
    offsets, logits = torch.zeros(1, 5, 4), torch.zeros(1, 5)
    if which == "one logit":
        logits[0, 3] = value
    if which in ("every logit", "everything"):
        logits[:] = value
    if which in ("every offset", "everything"):
        offsets[:] = value
    loss = float(multibox_loss(offsets, logits, priors, [random_boxes(2, seed=1).float()]))
    assert not np.isfinite(loss)
    assert np.isnan(loss) or not np.isnan(value)


# ---- the matching


@pytest.mark.parametrize(("predictions", "count"), [(1, 1), (2, 1), (2, 2), (5, 3), (6, 4), (6, 6)])
def test_no_assignment_costs_less(predictions: int, count: int) -> None:
    for seed in range(15):
        priors, objects = random_boxes(predictions, seed), random_boxes(count, seed + 200)
        positions = match_to_priors(priors, objects)
        cost = squared(priors, objects)
        assert positions.dtype == torch.int64
        assert tuple(positions.tolist()) == cheapest(cost)


def test_only_the_largest_of_too_many_objects_are_matched() -> None:
    for seed in range(10):
        priors, objects = random_boxes(3, seed), random_boxes(8, seed + 200)
        positions = match_to_priors(priors, objects)
        areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in objects.tolist()]
        largest = sorted(sorted(range(8), key=lambda number: -areas[number])[:3])
        assert sorted(claims_of(positions).values()) == largest
        assert positions[[number for number in range(8) if number not in largest]].tolist() == [-1] * 5
        cost = squared(priors, objects)
        assert tuple(positions[largest].tolist()) == cheapest(cost[:, largest])


def test_three_hundred_objects_for_twenty_priors() -> None:
    priors, objects = random_boxes(20, seed=0).float(), random_boxes(300, seed=1).float()
    offsets, logits = torch.randn(1, 20, 4), torch.randn(1, 20)
    positions = match_to_priors(priors, objects)
    assert positions.shape == (300,)
    assert sorted(claims_of(positions)) == list(range(20))
    areas = (objects[:, 2:] - objects[:, :2]).prod(dim=1)
    assert areas[positions >= 0].min() >= areas[positions < 0].max()
    loss = multibox_loss(offsets, logits, priors, [objects])
    expected = slow_loss(priors + UNIT * offsets[0], logits[0], objects, claims_of(positions))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [1, 3, 5, 9])
def test_identical_objects(count: int) -> None:
    priors = random_boxes(5, seed=0).float()
    objects = random_boxes(1, seed=1).float().expand(count, 4)
    positions = match_to_priors(priors, objects)
    nearest = np.argsort(squared(priors, objects[:1])[:, 0])[: min(count, 5)]
    assert set(claims_of(positions)) == set(nearest.tolist())


def test_objects_of_one_pixel() -> None:
    """Of a photograph of 5,000 px; and one without any area, as a broken annotation has it."""
    places: Sequence[float] = (0.1, 0.5, 0.9)
    objects = torch.tensor([[x, x, x + side, x + side] for x, side in zip(places, (2e-4, 2e-4, 0), strict=True)])
    priors = torch.tensor([[x - 0.1, x - 0.1, x + 0.1, x + 0.1] for x in (0.9, 0.1, 0.3, 0.5)])
    positions = match_to_priors(priors, objects)
    assert positions.tolist() == [1, 3, 0]
    loss = multibox_loss(torch.zeros(1, 4, 4), torch.zeros(1, 4), priors, [objects])
    assert float(loss) == pytest.approx(slow_loss(priors, torch.zeros(4), objects, claims_of(positions)), rel=1e-5)


def test_matching_with_200_priors() -> None:
    """In float32, where torch computes distances of so many by a matrix product: as cheap as scipy's on exact costs."""
    priors, objects = random_boxes(200, seed=0), random_boxes(40, seed=2, least=0.01)
    positions = match_to_priors(priors.float(), objects.float())
    assert len(claims_of(positions)) == 40
    cost = squared(priors, objects)
    least = cost[linear_sum_assignment(cost)].sum()
    assert cost[positions.numpy(), np.arange(40)].sum() == pytest.approx(least, rel=1e-4)
