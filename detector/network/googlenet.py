"""GoogLeNet, paper §5 and Table 1.

In: images [N, 3, H, W], at least 32 × 32, scaled as the weights' `InputConvention` says.  Out: logits [N, K]; on
request the box offsets of a regression layer (R-CNN, appendix C), which the paper's network does not have.
Table 1 lists no normalisation: the two LRN layers are those of figure 3 and of BVLC caffe bvlc_googlenet. Its figures
for conv1 fit a separable 7×7 (`stem`); like every public copy of the network, ours is dense unless asked. The 3×3/2
pools have no padding and round up (caffe). torchvision googlenet.py differs in `branch3_kernel`, `pool4_kernel` and
`norm`. `width` makes the paper's "wider" model (§5: no details; 1.25 is ours) and cheaper ones; `inception="naive"` is
figure 2a, which shows what the 1×1 reductions are for (§4).

Configuration, modules and network stand in this one file so that a reader meets them in order.
Shapes in comments are for 224 × 224.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.network.initialisation import CLASSIFIER_STD, initialise
from detector.network.lrn import LocalResponseNorm
from proposals.errors import UserError

SMALLEST_INPUT = 32  # px; five halvings leave one pixel
AUXILIARY_WEIGHT = 0.3  # §5

CHOICES: dict[str, tuple[object, ...]] = {
    "branch3_kernel": (5, 3),
    "pool4_kernel": (3, 2),
    "norm": ("lrn", "batch", "none"),
    "stem": ("dense", "separable"),
    "inception": ("reduced", "naive"),
    "auxiliary_heads": (0, 1, 2),
    "initialisation": ("auto", "gaussian2014", "xavier", "torchvision"),
}


@dataclass(frozen=True)
class GoogLeNetConfig:
    """The variant of GoogLeNet to build; the defaults are the paper's.

    Attributes:
        classes: Number of logits K; a region classifier has one for background too.
        branch3_kernel: Kernel of the third branch: 5, or 3 as in torchvision.
        pool4_kernel: Kernel of pool4: 3, or 2 as in torchvision.
        norm: "lrn" for local response normalisation; "batch" for batch normalisation in each convolution instead (2015,
            torchvision); "none".
        stem: First layer: "dense" 7×7, or "separable", each colour by itself to 8 maps and then 1×1 to 64, which fits
            the 2.7K parameters and 34M operations of Table 1.
        inception: "reduced" (figure 2b), or "naive" (figure 2a), without 1×1 reductions and with the pool passed on as
            it is.
        width: Factor of every number of filters, in steps of 8; the hidden layers of the heads keep theirs.
        auxiliary_heads: Number of classifiers that only training uses: 0, 1 (on 4a; §5 says that "only one" does as
            well, but not which) or 2 (on 4a and 4d).
        initialisation: Distribution of fresh weights: "gaussian2014", "xavier" (caffe's, uniform of variance
            1 / inputs), "torchvision" (Gaussian of deviation 0.01) or "auto", which is torchvision's with batch
            normalisation and gaussian2014 else.
        dropout: Share of the 1,024 features dropped in training, [0, 1).
        auxiliary_dropout: Share of the hidden units of the auxiliary heads dropped in training, [0, 1).
        regression_cells: Cells per channel of the last map that a box-regression layer reads: 9 for regions of 224 px,
            see `regression_features`. With one the network is a region classifier, whose logit 0 is background. 0 means
            that there is none, as in the paper.
    """

    classes: int = 1000
    branch3_kernel: int = 5  # Table 1
    pool4_kernel: int = 3  # Table 1
    norm: str = "lrn"  # figure 3
    stem: str = "dense"  # BVLC caffe
    inception: str = "reduced"  # figure 2b
    width: float = 1.0  # Table 1
    auxiliary_heads: int = 0
    initialisation: str = "auto"
    dropout: float = 0.4  # Table 1
    auxiliary_dropout: float = 0.7  # §5
    regression_cells: int = 0  # "we did not use bounding box regression", §8

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise ValueError(f"classes must be at least 1, got {self.classes}")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        if not 0.1 <= self.width <= 8:
            raise ValueError(f"width must be in [0.1, 8], got {self.width}")
        for name in ("dropout", "auxiliary_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.regression_cells and (self.regression_cells < 0 or self.classes < 2):
            raise ValueError(f"regression_cells must be 0 without a class beside background: {self.regression_cells}")


TABLE_1: dict[str, tuple[int, int, int, int, int, int] | None] = {
    #                1×1  3×3r 3×3 5×5r 5×5 pool projection
    "inception_3a": (64, 96, 128, 16, 32, 32),  # 28 × 28 × 256
    "inception_3b": (128, 128, 192, 32, 96, 64),  # 28 × 28 × 480
    "pool3": None,  # 14 × 14 × 480
    "inception_4a": (192, 96, 208, 16, 48, 64),  # 14 × 14 × 512
    "inception_4b": (160, 112, 224, 24, 64, 64),  # 14 × 14 × 512
    "inception_4c": (128, 128, 256, 24, 64, 64),  # 14 × 14 × 512
    "inception_4d": (112, 144, 288, 32, 64, 64),  # 14 × 14 × 528
    "inception_4e": (256, 160, 320, 32, 128, 128),  # 14 × 14 × 832
    "pool4": None,  # 7 × 7 × 832
    "inception_5a": (256, 160, 320, 32, 128, 128),  # 7 × 7 × 832
    "inception_5b": (384, 192, 384, 48, 128, 128),  # 7 × 7 × 1024
}
"""Filters of the modules, and the pools between them."""


class Convolution(nn.Sequential):
    """Convolution and ReLU, which keep the size at stride 1; batch normalisation between them replaces the bias."""

    def __init__(self, channels: int, filters: int, kernel: int, *, stride: int = 1, batch_norm: bool = False) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv"] = nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, bias=not batch_norm)
        if batch_norm:
            # torchvision's eps; averages over the last ~3,300 batches as in TF-slim inception_v1
            layers["norm"] = nn.BatchNorm2d(filters, eps=1e-3, momentum=3e-4)
        layers["relu"] = nn.ReLU(inplace=True)
        super().__init__(layers)


class SeparableStem(nn.Sequential):
    """7×7 at stride 2 on each colour by itself, 8 maps each, then 1×1 over them: 2,712 weights where dense has 9,408.

    Table 1's figures for conv1; [N, 3, H, W] -> [N, filters, H / 2, W / 2].
    """

    def __init__(self, filters: int, *, batch_norm: bool = False) -> None:
        super().__init__(
            OrderedDict(
                depthwise=nn.Conv2d(3, 24, 7, stride=2, padding=3, groups=3, bias=False),
                **dict(Convolution(24, filters, 1, batch_norm=batch_norm).named_children()),
            )
        )


class NaiveInception(nn.Module):
    """The module without reductions (figure 2a): the pool keeps all channels, so their number grows at every module."""

    def __init__(
        self, channels: int, one: int, three: int, five: int, *, branch3_kernel: int = 5, batch_norm: bool = False
    ) -> None:
        super().__init__()
        self.channels = one + three + five + channels
        self.branch1 = Convolution(channels, one, 1, batch_norm=batch_norm)
        self.branch2 = Convolution(channels, three, 3, batch_norm=batch_norm)
        self.branch3 = Convolution(channels, five, branch3_kernel, batch_norm=batch_norm)
        self.branch4_pool = nn.MaxPool2d(3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, one + three + five + C, H, W]."""
        return torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4_pool(x)), dim=1)


class Inception(nn.Module):
    """Four branches over one input, concatenated on channels (figure 2b); arguments are the columns of Table 1."""

    def __init__(
        self,
        channels: int,
        one: int,
        three_reduce: int,
        three: int,
        five_reduce: int,
        five: int,
        pool_projection: int,
        *,
        branch3_kernel: int = 5,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.channels = one + three + five + pool_projection
        self.branch1 = Convolution(channels, one, 1, batch_norm=batch_norm)
        self.branch2_reduce = Convolution(channels, three_reduce, 1, batch_norm=batch_norm)
        self.branch2 = Convolution(three_reduce, three, 3, batch_norm=batch_norm)
        self.branch3_reduce = Convolution(channels, five_reduce, 1, batch_norm=batch_norm)
        self.branch3 = Convolution(five_reduce, five, branch3_kernel, batch_norm=batch_norm)
        self.branch4_pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.branch4 = Convolution(channels, pool_projection, 1, batch_norm=batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, one + three + five + pool_projection, H, W]."""
        branches = (
            self.branch1(x),
            self.branch2(self.branch2_reduce(x)),
            self.branch3(self.branch3_reduce(x)),
            self.branch4(self.branch4_pool(x)),
        )
        return torch.cat(branches, dim=1)


class AuxiliaryHead(nn.Module):
    """A classifier on an inner layer, which adds gradients to the lower layers in training (§5)."""

    def __init__(self, channels: int, config: GoogLeNetConfig) -> None:
        super().__init__()
        self.reduce = Convolution(channels, 128, 1, batch_norm=config.norm == "batch")
        self.fc1 = nn.Linear(2048, 1024)
        self.dropout = nn.Dropout(config.auxiliary_dropout)
        self.fc2 = nn.Linear(1024, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> logits [N, K]."""
        # The paper's pool makes 4 × 4 of 14 × 14; images of another size get the same grid from bins of another size.
        x = F.avg_pool2d(x, 5, stride=3) if x.shape[2:] == (14, 14) else F.adaptive_avg_pool2d(x, 4)  # [N, C, 4, 4]
        x = self.reduce(x)  # [N, 128, 4, 4]
        x = F.relu(self.fc1(x.flatten(1)))  # [N, 1024]
        x = self.fc2(self.dropout(x))  # [N, K]
        return x


class Heads(NamedTuple):
    """What the layers on top of the trunk say of N regions: logits [N, K + 1], box offsets [N, K, 4] or None."""

    logits: Tensor
    offsets: Tensor | None


class GoogLeNet(nn.Module):
    """The network of Table 1; `forward` gives logits.

    Attributes:
        trunk: Layers from the image to inception_5b, by the names of Table 1.
        fc: The classifier on the averaged features.
        regression: The layer that predicts box offsets beside it; None without `regression_cells`.

    Weights keep channels last in memory, and so do the activations that follow: 1.5-2 times the speed on a CPU.
    """

    def __init__(self, config: GoogLeNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GoogLeNetConfig()
        batch = config.norm == "batch"

        def wide(filters: int) -> int:
            return filters if config.width == 1 else max(8, round(filters * config.width / 8) * 8)

        def norm() -> nn.Module:
            return LocalResponseNorm() if config.norm == "lrn" else nn.Identity()

        def pool(kernel: int = 3) -> nn.MaxPool2d:
            return nn.MaxPool2d(kernel, stride=2, ceil_mode=True)

        def inception(channels: int, *filters: int) -> Inception | NaiveInception:
            one, three_reduce, three, five_reduce, five, projection = map(wide, filters)
            if config.inception == "naive":
                return NaiveInception(
                    channels, one, three, five, branch3_kernel=config.branch3_kernel, batch_norm=batch
                )
            columns = (one, three_reduce, three, five_reduce, five, projection)
            return Inception(channels, *columns, branch3_kernel=config.branch3_kernel, batch_norm=batch)

        layers: dict[str, nn.Module] = {
            "conv1": SeparableStem(wide(64), batch_norm=batch)
            if config.stem == "separable"
            else Convolution(3, wide(64), 7, stride=2, batch_norm=batch),  # 112 × 112 × 64
            "pool1": pool(),  # 56 × 56 × 64
            "norm1": norm(),
            "conv2_reduce": Convolution(wide(64), wide(64), 1, batch_norm=batch),  # 56 × 56 × 64
            "conv2": Convolution(wide(64), wide(192), 3, batch_norm=batch),  # 56 × 56 × 192
            "norm2": norm(),
            "pool2": pool(),  # 28 × 28 × 192
        }
        channels = wide(192)
        inner: dict[str, int] = {}  # channels that the auxiliary heads read
        for name, filters in TABLE_1.items():
            if filters is None:
                layers[name] = pool(config.pool4_kernel if name == "pool4" else 3)
                continue
            module = inception(channels, *filters)
            layers[name] = module
            channels = inner[name] = module.channels
        self.trunk = nn.Sequential(OrderedDict(layers))
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(channels, config.classes)
        cells = config.regression_cells
        self.regression = nn.Linear(cells * channels, 4 * (config.classes - 1)) if cells else None
        heads = config.auxiliary_heads
        self.auxiliary1 = AuxiliaryHead(inner["inception_4a"], config) if heads > 0 else None
        self.auxiliary2 = AuxiliaryHead(inner["inception_4d"], config) if heads > 1 else None
        rule = config.initialisation
        if rule == "auto":
            rule = "torchvision" if batch else "gaussian2014"
        initialise(self, rule)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, H, W] -> logits [N, K].

        Raises:
            ValueError: x is not [N, 3, H, W] with H, W >= 32.
        """
        check_input(x)
        return self.classify(self.trunk(x))

    def classify(self, features: Tensor) -> Tensor:
        """Average pool, dropout, classifier: [N, 1024, h, w] of inception_5b -> logits [N, K]."""
        pooled = features.mean(dim=(2, 3), dtype=self.fc.weight.dtype)  # [N, 1024]; the trunk may compute in bfloat16
        logits: Tensor = self.fc(self.dropout(pooled))  # [N, K]
        return logits

    def heads(self, features: Tensor) -> Heads:
        """Logits and, with a regression layer, box offsets: [N, 1024, h, w] -> [N, K + 1], [N, K, 4]."""
        logits = self.classify(features)
        if self.regression is None:
            return Heads(logits, None)
        offsets = self.regression(regression_features(features).to(self.regression.weight.dtype))  # [N, 4 K]
        return Heads(logits, offsets.unflatten(1, (-1, 4)))

    def set_regression(self, layer: nn.Linear | None) -> None:
        """Replace the layer that predicts box offsets; None removes it.

        Args:
            layer: From `regression_features` to 4 offsets for each class but background, class after class.
        """
        cells = layer.in_features // self.fc.in_features if layer else 0
        self.config = replace(self.config, regression_cells=cells)
        self.regression = layer

    def forward_with_auxiliary(self, x: Tensor) -> list[Tensor]:
        """Images [N, 3, H, W] -> logits [N, K] of the classifier, then of each auxiliary head.

        Raises:
            ValueError: x is not [N, 3, H, W] with H, W >= 32.
            RuntimeError: the network has no auxiliary heads, or is not in training mode: nothing else uses them.
        """
        if self.auxiliary1 is None:
            raise RuntimeError("this GoogLeNet has no auxiliary heads: build it with auxiliary_heads=2")
        if not self.training:
            raise RuntimeError("the auxiliary heads are for training: call train() first, or forward() for logits")
        check_input(x)
        x = self.trunk_slice(None, "inception_4b")(x)  # [N, 512, 14, 14]
        inner = [self.auxiliary1(x)]
        x = self.trunk_slice("inception_4b", "inception_4e")(x)  # [N, 528, 14, 14]
        if self.auxiliary2 is not None:
            inner.append(self.auxiliary2(x))
        x = self.trunk_slice("inception_4e", None)(x)  # [N, 1024, 7, 7]
        return [self.classify(x), *inner]

    def trunk_slice(self, start: str | None = None, stop: str | None = None) -> nn.Sequential:
        """Layers from `start` (None: the first) up to and without `stop` (None: the last), sharing their parameters.

        Each layer keeps its train or eval mode; `trunk_slice(None, s)` then `trunk_slice(s, None)` is the whole trunk.

        Raises:
            ValueError: no layer has that name, or start comes after stop.
        """
        names = list(dict(self.trunk.named_children()))
        for name in (start, stop):
            if name is not None and name not in names:
                raise UserError(f"the trunk has no layer {name!r}; it has {', '.join(names)}")
        begin = 0 if start is None else names.index(start)
        end = len(names) if stop is None else names.index(stop)
        if begin > end:
            raise ValueError(f"the slice starts at {start!r}, after its end {stop!r}")
        part = nn.Sequential(OrderedDict((name, self.trunk.get_submodule(name)) for name in names[begin:end]))
        part.training = self.training
        return part

    def replace_classifier(self, classes: int) -> None:
        """Give the network, and its auxiliary heads, fresh Gaussian last layers: fine-tuning's start (R-CNN §2.3)."""
        self.set_regression(None)
        self.config = replace(self.config, classes=classes)
        self.fc = self._fresh_classifier(self.fc)
        for head in (self.auxiliary1, self.auxiliary2):
            if head is not None:
                head.fc2 = self._fresh_classifier(head.fc2)

    def _fresh_classifier(self, old: nn.Linear) -> nn.Linear:
        new = nn.Linear(old.in_features, self.config.classes).to(old.weight)
        nn.init.normal_(new.weight, std=CLASSIFIER_STD)
        nn.init.zeros_(new.bias)
        return new


def regression_features(features: Tensor) -> Tensor:
    """Average the last map over overlapping 3 × 3 windows, which keeps coarse position for box regression.

    [N, C, 7, 7] -> [N, C · 9], windows at stride 2. A smaller map has fewer: 2 × 2 of 5 × 5, and one below 5 × 5.
    """
    side = min(3, *features.shape[2:])
    return F.avg_pool2d(features, side, stride=2).flatten(1)


def check_input(x: Tensor) -> None:
    """Reject what is not a batch of large enough RGB images.

    Raises:
        ValueError: x is not [N, 3, H, W] with H, W >= 32.
    """
    if x.dim() != 4 or x.shape[1] != 3 or min(x.shape[2:]) < SMALLEST_INPUT:
        raise ValueError(
            f"GoogLeNet needs images [N, 3, H, W] of at least {SMALLEST_INPUT} × {SMALLEST_INPUT} px, "
            f"got {list(x.shape)}"
        )


def training_loss(outputs: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy of the classifier plus 0.3 times that of each auxiliary head (§5).

    Args:
        outputs: Logits from `forward_with_auxiliary`, each [N, K].
        labels: [N] int64 in 0..K-1.
    """
    main, *inner = (F.cross_entropy(logits, labels) for logits in outputs)
    return main + AUXILIARY_WEIGHT * sum(inner, torch.zeros_like(main))
