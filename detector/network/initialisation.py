"""Fresh weights of GoogLeNet: the paper gives no distribution; three public ones are offered.

In: a network.  Out: the same, its weights drawn from torch's global generator.
"""

from __future__ import annotations

import math

from torch import nn

CLASSIFIER_STD = 1 / 1024  # that of the auxiliary classifiers; caffe's file does not give the main one's
GAUSSIAN_2014 = {
    # Standard deviations that the first BVLC caffe bvlc_googlenet (2014-12) lists and, with its other filler, ignores.
    "conv1": 0.1,
    "depthwise": 0.1,  # not in the file, which has the dense conv1
    "conv2_reduce": 0.1,
    "conv2": 0.03,
    "branch1": 0.03,
    "branch2_reduce": 0.09,
    "branch2": 0.03,
    "branch3_reduce": 0.2,
    "branch3": 0.03,
    "branch4": 0.1,
    "reduce": 0.08,
    "fc1": 0.02,
    "fc2": CLASSIFIER_STD,
    "fc": CLASSIFIER_STD,
}


def initialise(network: nn.Module, rule: str) -> None:
    """Draw fresh weights from torch's global generator.

    Batch normalisation always begins with scale 1 and shift 0, and the box-regression layer with 0, so that no box
    moves before it is fitted.

    Args:
        network: A GoogLeNet.
        rule: "gaussian2014": the standard deviations of `GAUSSIAN_2014`, biases 0.2, those of classifiers 0.
            "xavier": uniform within sqrt(3 / inputs), with the same biases (the solver BVLC trained with).
            "torchvision": Gaussian of deviation 0.01 (its cut at ±2 is 200 deviations away), biases 0.
    """
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear) or module.weight.is_meta:
            continue  # torch would load its compiler, for seconds, to draw numbers that have no memory
        row = name.removesuffix(".conv").rpartition(".")[2]
        if row == "regression":
            nn.init.zeros_(module.weight)
        elif rule == "torchvision":
            nn.init.normal_(module.weight, std=0.01)
        elif rule == "xavier":
            bound = math.sqrt(3 / module.weight[0].numel())
            nn.init.uniform_(module.weight, -bound, bound)
        else:
            nn.init.normal_(module.weight, std=GAUSSIAN_2014[row])
        if module.bias is not None:
            zero = rule == "torchvision" or row in ("fc", "fc2", "regression")
            nn.init.constant_(module.bias, 0.0 if zero else 0.2)
