"""Export a model: as an ONNX graph, or as safetensors of half the size; what is written is checked before it is kept.

In: a model by name.  Out: a file whose outputs on a fixed random input agree with the model's, and what to tell of it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from detector.checkpoint import (
    ImageClassifier,
    RegionClassifier,
    find_checkpoint,
    load_any_classifier,
    load_checkpoint,
    save_checkpoint,
)
from detector.commands.targets import check_target
from detector.model_files import (
    BEST,
    MULTIBOX_FORMAT,
    REGION_FORMAT,
    REJECTION_FORMAT,
    CheckpointError,
    find_model,
    weights_format,
)
from detector.multibox import MultiBoxModel, load_multibox, save_multibox
from detector.network import export as onnx_export
from detector.network.input import InputConvention
from detector.network.published import TORCHVISION
from detector.regions.maps import STRIDE
from proposals.errors import UserError
from proposals.files import write_whole

AnyModel = RegionClassifier | ImageClassifier | MultiBoxModel

TOLERANCES = {"onnx": 1e-4, "safetensors": 1e-2}
"""Largest difference of an output that is accepted, as a share of the largest: float32 in another order; float16."""
IMAGES = 4


def export(name: str, kind: str, output: Path | None, added: dict[str, str]) -> str:
    """Write a model in another form; return what to tell the user.

    Args:
        name: A file, the folder of a run, shipped weights, or torchvision.
        kind: onnx: a classifier as a graph, without box regression; safetensors: a copy in float16 with its provenance.
        output: The file to write; None for NAME.KIND in the working directory.
        added: Provenance by topic, added to the header of safetensors.

    Raises:
        CheckpointError: There is no such model, or none that can be exported so.
        TargetError: The file would replace something else.
        UserError: The outputs differ by more than the tolerance; nothing was written.
        ImportError: ONNX needs packages that are not installed; names the command.
    """
    source = find_checkpoint(name) if name == TORCHVISION else find_model(name)
    form = "" if source.suffix in (".onnx", ".pth") else weights_format(source)
    if form == REJECTION_FORMAT:
        raise CheckpointError(f"{name} is a rejection layer, of use beside its model alone; copy its file")
    if form == MULTIBOX_FORMAT and kind == "onnx":
        raise CheckpointError(f"{name} is MultiBox, and ONNX is for classifiers; take --format safetensors")
    target = output or Path(f"{source.parent.name if source.name == BEST else source.stem}.{kind}")
    check_target(target, "an ONNX model" if kind == "onnx" else "weights", [source])
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == "safetensors":
        return _export_half(_load(source, form), target, added)
    lines = _export_onnx(load_any_classifier(source), target)
    if form == REGION_FORMAT and load_checkpoint(source).shared:
        lines.append("it classifies warped squares; cutting regions from maps of the whole image is not part of it")
    return "\n".join(lines)


def random_images(size: int, convention: InputConvention) -> Tensor:
    """Make the same random images at each call, [4, 3, size, size] float32, about as spread as scaled photographs."""
    generator = torch.Generator().manual_seed(0)
    return 50 * torch.randn(IMAGES, 3, size, size, generator=generator) / max(convention.std)


def _export_onnx(classifier: ImageClassifier, target: Path) -> list[str]:
    model = onnx_export.to_onnx(classifier.network, classifier.size)
    images = random_images(classifier.size, classifier.convention)
    difference = onnx_export.largest_difference(classifier.network, model, images)
    _check(difference, "onnx", "onnxruntime's logits differ from torch's")
    with write_whole(target) as temporary:
        temporary.write_bytes(model)
    convention = classifier.convention
    return [
        f"{target}: {len(model) / 2**20:.1f} MiB; logits as torch's to {difference:.1e} of the largest",
        f"input images [N, 3, {classifier.size}, {classifier.size}] float32, RGB 0-255 minus {list(convention.mean)}, "
        f"divided by {list(convention.std)}; output logits [N, {classifier.network.config.classes}]",
    ]


def _export_half(model: AnyModel, target: Path, added: dict[str, str]) -> str:
    with write_whole(target) as temporary:
        if isinstance(model, MultiBoxModel):
            save_multibox(temporary, replace(model, provenance=model.provenance | added), half=True)
        else:
            save_checkpoint(temporary, replace(model, provenance=model.provenance | added), half=True)
        both = zip(_outputs(model), _outputs(_load(temporary, weights_format(temporary))), strict=True)
        difference = max(_difference(expected, found) for expected, found in both)
        _check(difference, "safetensors", "the outputs of the copy in float16 differ")
    size = target.stat().st_size / 2**20
    return f"{target}: {size:.1f} MiB; outputs as the model's to {difference:.1e} of the largest"


def _load(path: Path, form: str) -> AnyModel:
    if form == MULTIBOX_FORMAT:
        return load_multibox(path)
    return load_checkpoint(path) if form == REGION_FORMAT else load_any_classifier(path)


def _outputs(model: AnyModel) -> Sequence[Tensor]:
    """Compute all that a model says of the random images: logits, and offsets where it has some."""
    size = model.regions.size if isinstance(model, RegionClassifier) else model.size
    if isinstance(model, RegionClassifier) and model.shared:
        size = STRIDE * model.shared.grid  # an image whose maps are one region
    images = random_images(size, model.convention)
    with torch.inference_mode():
        if isinstance(model, MultiBoxModel):
            return tuple(model.network(images))
        network = copy.deepcopy(model.network).eval()
        return [one for one in network.heads(network.trunk(images)) if one is not None]


def _difference(expected: Tensor, found: Tensor) -> float:
    share = float((found - expected).abs().max() / expected.abs().max())
    return share if math.isfinite(share) else math.inf


def _check(difference: float, kind: str, what: str) -> None:
    if difference > TOLERANCES[kind]:
        raise UserError(f"{what} by {difference:.1e}; nothing was written")
