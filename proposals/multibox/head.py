"""MultiBox: a network that proposes boxes of any class, best first (Erhan et al., arXiv 1312.2249; paper §8).

In: whole images, warped to S × S.  Out: P boxes per image, each with a confidence; the best 200 join selective search.
The paper says only "200 region proposals coming from multi-box". Head, priors and encoding are those of the network
that the authors released later (google/multibox): the trunk's last map averaged to 3 × 3, two hidden layers, then four
offsets and a confidence for each of P prior boxes. Boxes are encoded as corners in units of 0.01 of the image.
The trunk is passed in: any module that maps images to [N, C, h, w], h and w at least 3.

N images, P priors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

DEVIATION = 0.01
"""Unit of an offset, as a share of the image's side: the deviation of the released priors."""

GRID = 3


@dataclass(frozen=True)
class MultiBoxConfig:
    """Size of the MultiBox head.

    The release has 800 priors and hidden layers of unknown width; these defaults were chosen by recall on val.

    Attributes:
        priors: Number P of prior boxes, and so of predicted boxes.
        hidden: Width of both hidden layers.
        dropout: Share of the second hidden layer dropped in training, in [0, 1).
    """

    priors: int = 200
    hidden: int = 512
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("priors", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout}")


class MultiBoxHead(nn.Module):
    """The layers from pooled features to the offsets and confidences of P boxes.

    Attributes:
        priors: [P, 4] x1, y1, x2, y2 as shares of the image.
    """

    priors: Tensor

    def __init__(self, channels: int, priors: Tensor, config: MultiBoxConfig) -> None:
        """Initialise the layers so that boxes start near their priors.

        Raises:
            ValueError: priors are not [P, 4] with corners in order.
        """
        super().__init__()
        if priors.shape != (config.priors, 4) or not (priors[:, :2] < priors[:, 2:]).all():
            raise ValueError(f"priors must be [{config.priors}, 4] with x1 < x2, y1 < y2, got {list(priors.shape)}")
        self.config = config
        self.register_buffer("priors", priors.float())
        self.fc1 = nn.Linear(channels * GRID * GRID, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.locations = nn.Linear(config.hidden, 4 * config.priors)
        self.confidences = nn.Linear(config.hidden, config.priors)
        for layer in (self.locations, self.confidences):
            if not layer.weight.is_meta:  # torch would load its compiler, for seconds, to draw nothing
                nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def set_confidence_prior(self, objects: float) -> None:
        """Set the confidence bias to the base rate `objects` / P, so that training does not start at 0.5 everywhere.

        Args:
            objects: Mean number of objects per image.
        """
        share = min(max(objects / self.config.priors, 1e-4), 0.5)
        nn.init.constant_(self.confidences.bias, math.log(share / (1 - share)))

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Map pooled features [N, 9 C] to offsets [N, P, 4] in units of DEVIATION and logits [N, P]."""
        x = F.relu6(self.fc1(pooled))  # [N, hidden]
        x = self.dropout(F.relu6(self.fc2(x)))  # [N, hidden]
        return self.locations(x).unflatten(1, (-1, 4)), self.confidences(x)


class MultiBox(nn.Module):
    """Trunk and head of a MultiBox network.

    Args:
        trunk: Module that maps images [N, 3, S, S] to [N, C, h, w].
        head: Head for C channels.
    """

    def __init__(self, trunk: nn.Module, head: MultiBoxHead) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images [N, 3, S, S] to offsets [N, P, 4] and logits [N, P]."""
        pooled = pool(self.trunk(x)).to(self.head.priors.dtype)  # the trunk may compute in bfloat16
        offsets, logits = self.head(pooled)
        return offsets, logits


def pool(features: Tensor) -> Tensor:
    """Average the trunk's map to 3 × 3; [N, C, h, w] -> [N, 9 C]. 7 × 7: windows of 3 at stride 2, as released."""
    if features.shape[2:] == (7, 7):
        return F.avg_pool2d(features, 3, stride=2).flatten(1)
    return F.adaptive_avg_pool2d(features, GRID).flatten(1)


def encode(boxes: Tensor, priors: Tensor) -> Tensor:
    """Encode boxes [..., 4], shares of the image, as offsets from the priors [..., 4] in units of DEVIATION."""
    return (boxes - priors) / DEVIATION


def decode(offsets: Tensor, priors: Tensor) -> Tensor:
    """Decode offsets [..., 4] to boxes [..., 4], shares of the image; the inverse of encode."""
    return priors + DEVIATION * offsets
