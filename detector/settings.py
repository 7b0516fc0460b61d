"""What a detector preset states. Without torch, so that commands read their settings and refuse wrong ones at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from proposals.settings import PRECISIONS, ProposalConfig, settings_hash

BACKENDS = ("torch", "onnxruntime")


@dataclass(frozen=True)
class SuppressionConfig:
    """Which scored boxes become detections.

    Attributes:
        min_score: a detection must score above this, in [0, 1].
        max_iou: overlap with a better box of its class above this drops it, in [0, 1].
        limit: most detections per image, all classes together.
        soft_sigma: 0: as max_iou says; above 0: nothing is dropped, overlap with better boxes lowers the score instead
            (soft-NMS, Gaussian; its authors take 0.5).
    """

    min_score: float = 0.001  # ours: average precision needs the low scores too
    max_iou: float = 0.3  # R-CNN's code; the paper names none
    limit: int = 200  # ours
    soft_sigma: float = 0.0  # beyond the paper

    def __post_init__(self) -> None:
        for name in ("min_score", "max_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"suppression.{name} must be in [0, 1], not {getattr(self, name)}")
        if not 0 <= self.soft_sigma < math.inf:
            raise ValueError(f"suppression.soft_sigma must be 0 or above, not {self.soft_sigma}")
        if self.limit < 1:
            raise ValueError(f"suppression.limit must be at least 1, not {self.limit}")


@dataclass(frozen=True)
class CascadeConfig:
    """Which regions the members after the first look at; by default all.

    Attributes:
        threshold: a region passes where the first member's probability of any object exceeds this, in [0, 1); 0: all.
        best: so many of an image's regions pass in any case, those with the highest of these probabilities.
    """

    threshold: float = 0.0
    best: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"cascade.threshold must be in [0, 1), not {self.threshold}")
        if self.best < 0:
            raise ValueError(f"cascade.best must not be negative, but is {self.best}")

    @property
    def applies(self) -> bool:
        """Whether any region may be held back."""
        return self.threshold > 0


@dataclass(frozen=True)
class DetectorConfig:
    """A detector: image -> proposals -> warped regions -> scores -> NMS -> detections.

    Attributes:
        models: region classifiers whose softmax is averaged, any number: files, or names of shipped weights.
        proposals: where objects might be.
        suppression: which scored boxes become detections.
        regression: move each class's box to where the classifiers' regression layers place the object; all of them must
            have one. The paper has none.
        mirror: score each region's mirror image too, and take the mean, at twice the price. The paper mentions none.
        cascade: which regions the members after the first look at.
        batch: regions scored at a time.
        backend: What runs the networks: torch, or onnxruntime, an optional extra that computes in float32 on a CPU.
        precision: Number format of the convolutions: float32, bfloat16, or auto, which is bfloat16 where the device
            multiplies it faster.
    """

    models: list[str] = field(default_factory=lambda: ["googlenet_voc"])
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    suppression: SuppressionConfig = field(default_factory=SuppressionConfig)
    regression: bool = False
    mirror: bool = False
    cascade: CascadeConfig = field(default_factory=CascadeConfig)
    batch: int = 8  # on a CPU 16 and 32 are no faster in whole detectors, and take more memory
    backend: str = "torch"
    precision: str = "auto"

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models must name at least one region classifier")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, not {self.batch}")
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {self.backend!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if self.backend == "onnxruntime" and self.precision == "bfloat16":
            raise ValueError("backend=onnxruntime computes in float32; leave out precision=bfloat16")

    def __hash__(self) -> int:
        return settings_hash(self)
