"""The training loss of MultiBox (Erhan et al., arXiv 1312.2249, as gvanhorn38/multibox implements it).

In: predicted offsets and confidences, and the objects of each image.  Out: the mean loss of an image.
Each object is matched to one predicted box, which is trained to fit it with confidence c = 1; unmatched predictions are
trained towards confidence 0:
    loss of an image = - Σ log c over matched predictions - Σ log(1 - c) over the others + α/2 Σ |l - g|² over matched
Boxes l and objects g are in units of 0.01 of the image (whitened by the priors' deviation), for which α = 0.3 is the
figure of 1312.2249; in shares of the image it is 3,000.

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
    """Match each object to a prior of its own, with the least sum of squared corner distances.

    Args:
        priors: [P, 4] shares of the image.
        objects: [M, 4] shares of the image. If there are more than P, only the P largest are matched.

    Returns:
        [M] int64, positions in `priors`; -1 for an unmatched object.
    """
    return _assign(torch.cdist(priors, objects).square(), objects)


def match_bipartite(priors: Tensor, offsets: Tensor, logits: Tensor, objects: Tensor, alpha: float = ALPHA) -> Tensor:
    """Match each object to a prediction of its own, with the least loss, α/2 |l - g|² - log c + log(1 - c) each.

    Args:
        priors: [P, 4] shares of the image.
        offsets: [P, 4], predicted for one image.
        logits: [P], predicted for one image.
        objects: [M, 4] shares of the image.
        alpha: Weight α of the location.

    Returns:
        [M] int64 as match_to_priors.
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
    """Compute the mean loss of N images.

    Args:
        offsets: [N, P, 4], predicted.
        logits: [N, P], predicted.
        priors: [P, 4] shares of the image.
        objects: N tensors [M, 4], shares of the image; M may be 0.
        match: "prior" matches objects to priors, which makes predictions specialise (1312.2249's trick); "bipartite"
            matches them to predictions.
        alpha: Weight α of the location.

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
    """Assign objects by least cost [P, M]; returns [M] positions, -1 for the smallest objects beyond P."""
    count = min(cost.shape)
    sides = objects[:, 2:] - objects[:, :2]
    largest = torch.argsort(sides.prod(dim=1), descending=True, stable=True)[:count]
    rows, columns = linear_sum_assignment(_finite(cost[:, largest].cpu().double().numpy()))
    result = torch.full((len(objects),), -1, dtype=torch.int64, device=objects.device)
    result[largest[torch.from_numpy(columns)]] = torch.from_numpy(rows).to(objects.device)
    return result


def _finite(cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace costs that are not finite: a diverged loss must reach its own message, not scipy's."""
    result: NDArray[np.float64] = np.nan_to_num(cost, nan=1e9, posinf=1e9, neginf=-1e9)
    return result
