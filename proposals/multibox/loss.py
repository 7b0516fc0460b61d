"""How MultiBox is taught: each object claims a prediction, which is to lie on it and be sure; the others are to doubt.

Loss of an image = - Σ log c over claimed predictions - Σ log(1 - c) over the others + α/2 Σ |l - g|² over claimed
(Erhan et al., arXiv 1312.2249, as gvanhorn38/multibox reads it). l and g are in units of 0.01 of the image (whitened
by the priors' deviation); α = 0.3 there is the 1312.2249 figure, and 3,000 in shares of the image.

N images, P predictions, M objects of one image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from proposals.multibox.head import decode, encode

MATCHES = ("prior", "bipartite")
ALPHA = 0.3


def match_to_priors(priors: Tensor, objects: Tensor) -> Tensor:
    """Each object's prior, the nearest by squared corner distance, no two the same.

    Args:
        priors: [P, 4] shares of the image.
        objects: [M, 4] shares of the image; of more than P only the largest P take part.

    Returns:
        [M] int64, positions in priors; -1 for an object that takes no part.
    """
    return _assign(torch.cdist(priors, objects).square(), objects)


def match_bipartite(priors: Tensor, offsets: Tensor, logits: Tensor, objects: Tensor, alpha: float = ALPHA) -> Tensor:
    """Each object's prediction in the assignment of least loss, α/2 |l - g|² - log c + log(1 - c) each.

    Args:
        priors: [P, 4] shares of the image.
        offsets: [P, 4] of one image.
        logits: [P] of one image.
        objects: [M, 4] shares of the image.
        alpha: α.

    Returns:
        as match_to_priors.
    """
    predicted = encode(decode(offsets, priors), torch.zeros(4, device=priors.device))  # units of DEVIATION
    wanted = encode(objects, torch.zeros(4, device=priors.device))
    cost = alpha / 2 * torch.cdist(predicted, wanted).square() - logits[:, None]  # -log c + log(1 - c) = -logit
    return _assign(cost, objects)


def multibox_loss(
    offsets: Tensor,
    logits: Tensor,
    priors: Tensor,
    objects: Sequence[Tensor],
    *,
    match: str = "prior",
    alpha: float = ALPHA,
) -> Tensor:
    """The mean over the images of the loss above.

    Args:
        offsets: [N, P, 4].
        logits: [N, P].
        priors: [P, 4] shares of the image.
        objects: N tensors [M, 4], shares of the image; M may be 0.
        match: "prior": the assignment depends on the priors alone, which keeps the predictions apart (1312.2249's
            trick); "bipartite": on what is predicted.
        alpha: weight of the location.

    Raises:
        ValueError: another match.
    """
    if match not in MATCHES:
        raise ValueError(f"match must be one of {', '.join(MATCHES)}, not {match!r}")
    claimed = torch.zeros_like(logits)
    location = offsets.new_zeros(())
    with torch.no_grad():
        matches = [
            match_to_priors(priors, boxes)
            if match == "prior"
            else match_bipartite(priors, offsets[image], logits[image], boxes, alpha)
            for image, boxes in enumerate(objects)
        ]
    for image, (boxes, positions) in enumerate(zip(objects, matches, strict=True)):
        taking = positions >= 0
        chosen = positions[taking]
        claimed[image, chosen] = 1
        target = encode(boxes[taking], priors[chosen])
        location = location + (offsets[image, chosen] - target).square().sum() / 2
    confidence = F.binary_cross_entropy_with_logits(logits, claimed, reduction="sum")
    return (confidence + alpha * location) / len(logits)


def _assign(cost: Tensor, objects: Tensor) -> Tensor:
    """The assignment of least cost [P, M]; [M] positions, -1 for those beyond P, the smallest objects."""
    count = min(cost.shape)
    sides = objects[:, 2:] - objects[:, :2]
    largest = torch.argsort(sides.prod(dim=1), descending=True, stable=True)[:count]
    rows, columns = linear_sum_assignment(_finite(cost[:, largest].cpu().double().numpy()))
    result = torch.full((len(objects),), -1, dtype=torch.int64, device=objects.device)
    result[largest[torch.from_numpy(columns)]] = torch.from_numpy(rows).to(objects.device)
    return result


def _finite(cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """A loss that is not finite has to reach its own message, not scipy's."""
    result: NDArray[np.float64] = np.nan_to_num(cost, nan=1e9, posinf=1e9, neginf=-1e9)
    return result
