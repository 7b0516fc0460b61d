"""Epochs and batches that fit a number of minutes, from what a batch and an image cost on this machine.

In: measured seconds, numbers of images, a budget.  Out: a Plan, with the seconds that each part of it takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

EPOCHS = 10
MOST_BATCHES, FEWEST_BATCHES, FEWEST_EPOCHS = 200, 10, 3
LINEAR_BATCHES = 40
AP_IMAGES = 60
FEW_AP_IMAGES = 30
"""Images below which AP is measured every second epoch, on twice as many: AP on few images is chance."""
MEASURED = 0.3
"""Largest share of an epoch's time for AP on val, unless that is fewer than 10 images."""
AFTERWARDS = 0.05
"""Share of the budget kept for starting, saving and box regression."""
PASSES = 40
"""Most times that an image is seen on average; a longer training of few images learns them by heart."""


@dataclass(frozen=True)
class Costs:
    """What a training costs on this machine, s.

    Attributes:
        proposal: Proposals of an image.
        batch: A training step, with the wait for its images.
        linear: A batch of the linear fit, without gradients.
        detection: Detecting in an image of val.
    """

    proposal: float
    batch: float
    linear: float
    detection: float


@dataclass(frozen=True)
class Plan:
    """The length of a training.

    Attributes:
        epochs: Number of epochs.
        batches: Batches of an epoch.
        linear_batches: Batches of the linear fit.
        ap_every: Epochs between two measurements of AP on val.
        ap_images: Images of val on which it is measured.
        proposals: Seconds for the proposals of all images.
        linear: Seconds for the linear fit and the first measurement.
        steps: Seconds for the batches of all epochs.
        measurements: Seconds for AP on val.
        fits: Whether all of it takes no longer than the budget.
    """

    epochs: int
    batches: int
    linear_batches: int
    ap_every: int
    ap_images: int
    proposals: float
    linear: float
    steps: float
    measurements: float
    fits: bool

    @property
    def seconds(self) -> float:
        """All of it, without the box regression at the end."""
        return self.proposals + self.linear + self.steps + self.measurements


def plan_training(minutes: float, costs: Costs, *, train: int, val: int, per_batch: int) -> Plan:
    """Choose the length of a training of regions.

    The proposals of all images come first, whatever they take. What is left is shared by the epochs, of whose time AP
    takes at most three tenths, or as much as 10 images do.

    Args:
        minutes: The budget.
        costs: Costs on this machine.
        train: Number of images to train on.
        val: Number of images to measure on.
        per_batch: Images of a batch.
    """
    budget = 60 * minutes * (1 - AFTERWARDS)
    proposals = costs.proposal * (train + val)
    linear_batches = max(5, min(LINEAR_BATCHES, int(0.1 * budget / costs.linear)))
    left = budget - proposals - linear_batches * costs.linear
    share = left / (EPOCHS + 1)  # the state before the first step is measured too
    allowed = int(MEASURED * share / costs.detection)
    ap_every = 1 if allowed >= min(val, FEW_AP_IMAGES) else 2
    ap_images = min(val, AP_IMAGES, max(10, ap_every * allowed))
    measured = ap_images * costs.detection

    def remaining(epochs: int) -> float:
        """Return the seconds of an epoch without AP."""
        return (left - measured * (1 + math.ceil(epochs / ap_every))) / epochs

    epochs = EPOCHS
    while epochs > FEWEST_EPOCHS and remaining(epochs) < FEWEST_BATCHES * costs.batch:
        epochs -= 1
    while remaining(epochs) > MOST_BATCHES * costs.batch:
        epochs += 1
    batches = min(MOST_BATCHES, math.floor(remaining(epochs) / costs.batch))
    enough = math.ceil(PASSES * train / per_batch)
    if epochs * batches > enough:
        epochs = max(EPOCHS, math.ceil(enough / batches))
        batches = math.ceil(enough / epochs)
    batches = max(batches, FEWEST_BATCHES)
    plan = Plan(
        epochs=epochs,
        batches=batches,
        linear_batches=linear_batches,
        ap_every=ap_every,
        ap_images=ap_images,
        proposals=proposals,
        linear=linear_batches * costs.linear + measured,
        steps=epochs * batches * costs.batch,
        measurements=math.ceil(epochs / ap_every) * measured,
        fits=True,
    )
    return plan if plan.seconds <= 60 * minutes else Plan(**vars(plan) | {"fits": False})


def plan_images(minutes: float, batch: float, val: float, *, train: int, size: int) -> tuple[int, float]:
    """Choose the epochs of a training on whole images.

    Args:
        minutes: The budget.
        batch: Seconds of a training step.
        val: Seconds of a measurement on val.
        train: Number of images to train on.
        size: Images of a batch.

    Returns:
        the number of epochs, at least 3, and the seconds that they take.
    """
    epoch = max(1, round(train / size)) * batch + val
    epochs = max(FEWEST_EPOCHS, min(PASSES, int(60 * minutes * (1 - AFTERWARDS) / epoch)))
    return epochs, epochs * epoch
