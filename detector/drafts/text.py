"""The text of a config for a data set: regions of a detection data set, or whole images.

In: the data sections, what is known of them, a plan.  Out: YAML with comments, which load_config reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import Any

import yaml  # type: ignore[import-untyped]

from detector.drafts.budget import EPOCHS, LINEAR_BATCHES, Plan

IMAGES = 4
WINDOWS = 32  # of an image
PATIENCE = 4


@dataclass(frozen=True)
class Heading:
    """The comments at the top of a config.

    Attributes:
        title: First line.
        train: The command that trains with it.
        lines: Further lines: what the folder is, and the table of its objects.
        budget: What the training takes, one line; empty before it is known.
    """

    title: str
    train: str
    lines: Sequence[str]
    budget: str = ""

    def __str__(self) -> str:
        lines = [self.title, self.train, *self.lines, *[self.budget] * bool(self.budget)]
        return "".join(f"# {line}".rstrip() + "\n" for line in lines) + "\n"


def images_per_batch(with_objects: int) -> int:
    """Return how many images the windows of a batch come from, where so many have an object."""
    return max(count for count in (1, 2, IMAGES) if count <= max(1, with_objects))


def regions_text(
    heading: Heading, name: str, train: Any, val: Any, *, images: int, gpu: bool, plan: Plan | None
) -> str:
    """Write the config of a training of regions.

    Args:
        heading: Its comments.
        name: Name of the run.
        train: DataConfig to train on.
        val: DataConfig to measure on.
        images: Images of a batch.
        gpu: Whether it is for a GPU, which trains all layers.
        plan: Its length; None for a draft on which costs are measured.
    """
    epochs, batches, ap_every = (plan.epochs, plan.batches, plan.ap_every) if plan else (EPOCHS, 100, 1)
    layers = (
        "train_from: conv1  # all layers\nlearning_rate: 0.004"
        if gpu
        else "train_from: inception_5a  # the last two modules; from inception_4a on it learns more and takes longer\n"
        "learning_rate: 0.001  # with 0.003 the first batches undo what the fit of the last layer has reached"
    )
    return f"""{heading}{_pair("name", name)}
train: {section(train)}
val: {section(val)}

init: shared_voc0712  # shipped, PASCAL VOC's 20 classes; its last layer is replaced
mode: shared  # regions are cut from maps of the whole image
proposals: {{multibox: {{weights: multibox_voc, crops: 1}}}}  # beside selective search, as at test
{layers}

epochs: {epochs}
batches_per_epoch: {batches}
linear_batches: {plan.linear_batches if plan else LINEAR_BATCHES}  # fit the last layer first
batch: {images * WINDOWS}  # windows
images: {images}  # from which they come
foreground: {images * WINDOWS // 4}
hard_background: {images * WINDOWS * 3 // 8}
foreground_iou: 0.6
background_iou: 0.5

schedule: constant  # with the average of the weights; early stopping and a falling rate do not go together
ap_every: {ap_every}  # epochs between two measurements of AP
ap_images: {plan.ap_images if plan else 0}  # of val
choose_by: val_ap
patience: {PATIENCE // ap_every}  # measurements without a better AP, after which it stops

class_balance: 0.5  # images of rare classes come more often
distortion: 0.3  # of brightness, contrast and colour
scale_jitter: 1.25
regression_windows: 2000  # per class, for box regression at the end
"""


def images_text(heading: Heading, name: str, train: Any, val: Any, *, batch: int, epochs: int) -> str:
    """Write the config of a training on whole images, of one class each.

    Args:
        heading: Its comments.
        name: Name of the run.
        train: ImagesConfig to train on.
        val: ImagesConfig to measure on.
        batch: Images of a batch.
        epochs: Number of epochs.
    """
    return f"""{heading}task: images
{_pair("name", name)}
train: {section(train)}
val: {section(val)}

init_from: googlenet_voc0712  # shipped; its last layer is replaced
network: {{auxiliary_heads: 0}}
epochs: {epochs}
batch: {batch}
learning_rate: 0.003
schedule: constant  # with the average of the weights; early stopping and a falling rate do not go together
averaging: ema
average_decay: 0.99
patience: {PATIENCE}  # epochs without a smaller error on val, after which it stops
sampling: {{area: [0.35, 1.0], distortion: 0.3}}  # the paper's 0.08 and 0.5 are for a million images
"""


def section(config: Any) -> str:
    """Write a data section on one line, with the settings that are not the defaults."""
    stated = {}
    for field in fields(config):
        value = getattr(config, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if value != default:
            stated[field.name] = value.name if isinstance(value, Enum) else value
    text: str = yaml.safe_dump(stated, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
    return text.strip()


def _pair(key: str, value: str) -> str:
    text: str = yaml.safe_dump({key: value}, allow_unicode=True, width=10**9)
    return text.strip()
