"""The training loss of MultiBox (Erhan et al., arXiv 1312.2249, as gvanhorn38/multibox implements it).

In: predicted offsets and confidences, and the objects of each image.  Out: the mean loss of an image.
Each object is matched to a prior, which makes predictions specialise (1312.2249), and the prediction of that prior is
trained to fit it with confidence c = 1; unmatched predictions are trained towards confidence 0:
    loss of an image = - Σ log c over matched predictions - Σ log(1 - c) over the others + α/2 Σ |l - g|² over matched
Boxes l and objects g are in units of 0.01 of the image (whitened by the priors' deviation), for which α = 0.3 is the
figure of 1312.2249; in shares of the image it is 3,000.

N images, P predictions, M objects of one image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from proposals.multibox.head import encode

ALPHA = 0.3


def match_to_priors(priors: Tensor, objects: Tensor) -> Tensor:
    """Match each object to a prior of its own, with the least sum of squared corner distances.

    Args:
        priors: [P, 4] shares of the image.
        objects: [M, 4] shares of the image. If there are more than P, only the P largest are matched.

    Returns:
        [M] int64, positions in `priors`; -1 for an unmatched object.
    """
    areas = (objects[:, 2:] - objects[:, :2]).prod(dim=1)
    largest = torch.argsort(areas, descending=True, stable=True)[: len(priors)]
    cost = torch.cdist(priors, objects[largest]).square().cpu().double().numpy()  # [P, at most P]
    rows, columns = map(torch.from_numpy, linear_sum_assignment(cost))
    result = torch.full((len(objects),), -1, dtype=torch.int64, device=objects.device)
    result[largest[columns]] = rows.to(objects.device)
    return result


def multibox_loss(
    offsets: Tensor, logits: Tensor, priors: Tensor, objects: Sequence[Tensor], *, alpha: float = ALPHA
) -> Tensor:
    """Compute the mean loss of N images.

    Args:
        offsets: [N, P, 4], predicted.
        logits: [N, P], predicted.
        priors: [P, 4] shares of the image.
        objects: N tensors [M, 4], shares of the image; M may be 0.
        alpha: Weight α of the location.
    """
    matched = torch.zeros_like(logits)
    location = offsets.new_zeros(())
    for image, boxes in enumerate(objects):
        positions = match_to_priors(priors, boxes)
        chosen = positions[positions >= 0]
        matched[image, chosen] = 1
        target = encode(boxes[positions >= 0], priors[chosen])
        location = location + (offsets[image, chosen] - target).square().sum() / 2
    confidence = F.binary_cross_entropy_with_logits(logits, matched, reduction="sum")
    return (confidence + alpha * location) / len(logits)
