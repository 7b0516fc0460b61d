"""The settings of a detector. This module needs no torch, so commands check their settings at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from proposals.settings import SCORING_PRECISIONS, ProposalConfig, settings_hash

BACKENDS = ("torch", "onnxruntime")
AUTO = "auto"
LOWEST = 0.001
"""Score that a detection must exceed where average precision is computed: it needs the low scores too."""


@dataclass(frozen=True)
class SuppressionConfig:
    """Which scored boxes become detections.

    Attributes:
        min_score: Score that a detection must exceed, in [0, 1], whatever its class. null: a detector shows each class
            from its operating point (see `operating_points`), or from 0.5 where it has none; an evaluation takes 0.001.
        max_iou: Overlap with a better box of its class above which a box is dropped, in [0, 1]; unused by soft-NMS.
        limit: Largest number of detections per image, all classes together.
        soft_sigma: Width of the Gaussian of soft-NMS, which lowers the scores of overlapping boxes and drops none; its
            authors take 0.5. 0 selects greedy suppression by `max_iou`.
        vote: Box voting: each box that is kept becomes the mean, weighted by score, of the boxes of its class that
            overlap it by at least this IoU, in (0, 1]; MR-CNN takes 0.5. 0 leaves the boxes as they are.
    """

    min_score: float | None = LOWEST  # ours
    max_iou: float = 0.3  # R-CNN's code; the paper names none
    limit: int = 200  # ours
    soft_sigma: float = 0.0  # beyond the paper
    vote: float = 0.0  # beyond the paper

    def __post_init__(self) -> None:
        for name, value in (("min_score", self.lowest), ("max_iou", self.max_iou), ("vote", self.vote)):
            if not 0 <= value <= 1:
                raise ValueError(f"suppression.{name} must be in [0, 1], not {value}")
        if not 0 <= self.soft_sigma < math.inf:
            raise ValueError(f"suppression.soft_sigma must be 0 or above, not {self.soft_sigma}")
        if self.limit < 1:
            raise ValueError(f"suppression.limit must be at least 1, not {self.limit}")

    @property
    def lowest(self) -> float:
        """`min_score`, or 0.001 where that is null."""
        return LOWEST if self.min_score is None else self.min_score


@dataclass(frozen=True)
class RejectionConfig:
    """Which regions are rejected on the maps of the first model, before it scores them; by default none.

    Attributes:
        weights: The rejection layer of the first model, which cuts its regions from maps: a file that fit_cascade
            wrote; auto for MODEL.rejection.safetensors beside that model's file, if there is one; empty for none. A
            layer works with one model alone, or with a cascade, and without `mirror`; auto takes none elsewhere.
        threshold: Probability of any object, by the layer, below which a region is rejected, in [0, 1). null: the one
            that was chosen when the layer was fitted.
    """

    weights: str = ""
    threshold: float | None = None  # ours

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise ValueError(f"rejection.threshold must be in [0, 1), not {self.threshold}")


@dataclass(frozen=True)
class CascadeConfig:
    """Which regions the members after the first score too, by default all, and what else is done with those that pass.

    Attributes:
        threshold: The first member's probability of any object above which a region passes, in [0, 1). 0 lets all pass.
        best: Number of regions per image that pass in any case, those where that probability is highest.
        near: IoU, in (0, 1], above which a region that passes is dropped for a better one that passes too, as judged by
            the first member. 1 drops none.
        mirror: All members score the mirror image of each region that passes too, and the mean is taken.
        second_pass: Each region that still passes by the mean of all members is moved by the box regression of its best
            class, and all members score it once more. It joins the other regions; `near` applies to the moved ones too.
    """

    threshold: float = 0.0
    best: int = 0
    near: float = 1.0
    mirror: bool = False
    second_pass: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"cascade.threshold must be in [0, 1), not {self.threshold}")
        if self.best < 0:
            raise ValueError(f"cascade.best must not be negative, but is {self.best}")
        if not 0 < self.near <= 1:
            raise ValueError(f"cascade.near must be in (0, 1], not {self.near}")
        for name in ("mirror", "second_pass"):
            if getattr(self, name) and not self.applies:
                raise ValueError(f"cascade.{name}=true is for regions that pass; set cascade.threshold=0.1 or another")

    @property
    def applies(self) -> bool:
        """Whether the cascade may reject a region."""
        return self.threshold > 0


@dataclass(frozen=True)
class DetectorConfig:
    """A detector: image -> proposals -> regions -> scores -> suppression -> detections.

    Attributes:
        models: Region classifiers whose softmax is averaged, one or more: files, folders of runs, or names of shipped
            weights (`models list` shows them).
        proposals: Where objects might be.
        suppression: Which scored boxes become detections.
        regression: Move each class's box by the classifiers' box-regression layers; every classifier must have one. The
            paper has none.
        mirror: Score the mirror image of each region too and take the mean, at twice the cost. The paper mentions none.
        rejection: Which regions the first model does not score.
        cascade: Which regions the members after the first score too, or one model alone scores more thoroughly.
        batch: Number of warped regions scored at a time. null: 8 on a CPU; on a GPU 256, or what its memory holds.
        backend: What runs the networks: torch, or onnxruntime, an optional extra that computes in float32 on a CPU.
        precision: Number format of the convolutions: float32, bfloat16, int8 (on a CPU; every model needs ranges of its
            activations, which shipped weights have), or auto, the fastest of them on this machine.
        operating_points: The lowest score that is shown of each class, where suppression.min_score is null: a file that
            eval_map wrote; auto for a file NAME.points.json beside the first model that was measured on this very
            detector, if there is one; empty for none. An evaluation uses none.
    """

    models: list[str] = field(default_factory=lambda: ["googlenet_voc"])
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    suppression: SuppressionConfig = field(default_factory=SuppressionConfig)
    regression: bool = False
    mirror: bool = False
    rejection: RejectionConfig = field(default_factory=RejectionConfig)
    cascade: CascadeConfig = field(default_factory=CascadeConfig)
    batch: int | None = None  # on a CPU 16 and 32 are no faster in whole detectors, and take more memory
    backend: str = "torch"
    precision: str = "auto"
    operating_points: str = AUTO

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models must name at least one region classifier")
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"batch must be at least 1, not {self.batch}")
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {self.backend!r}")
        if self.precision not in SCORING_PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(SCORING_PRECISIONS)}, not {self.precision!r}")
        if self.cascade.mirror and self.mirror:
            raise ValueError(
                "mirror=true mirrors all regions; for those alone that pass leave it out: cascade.mirror=true"
            )
        if self.cascade.second_pass and not self.regression:
            raise ValueError("cascade.second_pass=true moves regions by box regression; set regression=true")
        if self.rejection.weights not in ("", AUTO) and not self.may_reject:
            raise ValueError(
                "rejection.weights needs mirror=false, and with several models a cascade (cascade.threshold above 0)"
            )
        if self.backend == "onnxruntime" and self.precision in ("bfloat16", "int8"):
            raise ValueError(f"backend=onnxruntime computes in float32; leave out precision={self.precision}")

    @property
    def may_reject(self) -> bool:
        """Whether a region that the first model does not score is scored by no other either."""
        return not self.mirror and (len(self.models) == 1 or self.cascade.applies)

    def __hash__(self) -> int:
        return settings_hash(self)
