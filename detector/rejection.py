"""The file of a rejection layer, which belongs to the weights of one region classifier.

The file is safetensors like a classifier's (detector.checkpoint); it names the classifier by a fingerprint of its
weights, because the layer predicts what that very network would answer.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from detector.checkpoint import RegionClassifier, fill, fitting, write_weights
from detector.invocation import command
from detector.model_files import (
    REJECTION_FORMAT,
    CheckpointError,
    find_weights,
    read_header,
    read_metadata,
    rejection_path,
)
from detector.regions.rejection import RejectionLayer, RejectionLayerConfig
from detector.settings import AUTO, DetectorConfig

_LOG = logging.getLogger(__name__)


class OtherWeightsError(CheckpointError):
    """A rejection layer belongs to other weights than the model's."""


@dataclass(frozen=True)
class RejectionModel:
    """A fitted rejection layer, and everything needed to use it.

    Attributes:
        layer: The layer, in evaluation mode.
        threshold: Probability below which a region is rejected, in [0, 1), chosen when the layer was fitted.
        fingerprint: Fingerprint of the network whose maps it sees.
        provenance: Free text by topic: data, recipe, command, results.
    """

    layer: RejectionLayer
    threshold: float
    fingerprint: str
    provenance: dict[str, str] = field(default_factory=dict)


def fingerprint(network: nn.Module, *, regression: bool = False) -> str:
    """Return the SHA-256 of a network's weights in float16, which copies in half and full precision share.

    Auxiliary heads do not count, and box regression only with `regression`: they change no map and no probability.
    """
    left_out = ("auxiliary",) if regression else ("auxiliary", "regression")
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith(left_out):
            digest.update(name.encode())
            digest.update(tensor.to(torch.float16).contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def save_rejection(path: Path, model: RejectionModel) -> None:
    """Write the layer in float16; the file appears whole or not at all."""
    state = {name: tensor.half().contiguous().cpu() for name, tensor in model.layer.state_dict().items()}
    header = {
        "layer": asdict(model.layer.config),
        "depth": model.layer.project.in_channels,
        "threshold": model.threshold,
        "fingerprint": model.fingerprint,
        "provenance": model.provenance,
    }
    write_weights(path, state, REJECTION_FORMAT, header)


def find_rejection(config: DetectorConfig, classifier: RegionClassifier) -> RejectionModel | None:
    """Read the rejection layer that a detector's config asks for; None where it asks for none.

    A layer that `auto` finds beside the model, and that belongs to other weights, is left out with a warning: the model
    may have been trained again since.

    Args:
        config: The config; its `rejection.threshold` replaces the layer's own.
        classifier: The first model.

    Raises:
        CheckpointError: There is no such file, it is another kind of file, or it belongs to other weights.
    """
    name, model = config.rejection.weights, config.models[0]
    if not name:
        return None
    if name == AUTO:
        file = find_weights(model)
        beside = rejection_path(file) if file else None
        if beside is None or not beside.is_file() or not config.may_reject:
            return None
        try:
            found = load_rejection(beside, classifier, model)
        except OtherWeightsError as error:
            _LOG.warning("%s; going on without it", error)
            return None
    else:
        found = load_rejection(Path(name).expanduser(), classifier, model)
    threshold = config.rejection.threshold
    return found if threshold is None else replace(found, threshold=threshold)


def load_rejection(path: Path, classifier: RegionClassifier, model: str) -> RejectionModel:
    """Read the rejection layer of a classifier, in float32, on the CPU.

    Args:
        path: The file.
        classifier: The classifier that it must belong to.
        model: Name of that classifier, for messages.

    Raises:
        OtherWeightsError: The layer belongs to other weights.
        CheckpointError: There is no such file, or it is another kind of file.
    """
    refit = f"fit one: {command('fit_cascade')} detector.models=[{model}]; or leave it out: rejection.weights=''"
    if not path.is_file():
        raise CheckpointError(f"no rejection layer {path}; {refit}")
    metadata = read_metadata(path)
    if metadata.get("format") != REJECTION_FORMAT:
        raise CheckpointError(f"{path} holds no rejection layer of this project; {refit}")
    with fitting(path):
        header = read_header(path, metadata)
        with torch.device("meta"):
            layer = RejectionLayer(header["depth"], RejectionLayerConfig(**header["layer"]))
        fill(layer, load_file(path))
        found = RejectionModel(layer.eval(), header["threshold"], header["fingerprint"], header["provenance"])
    if classifier.shared is None:
        raise CheckpointError(f"{path}: {model} warps its regions, and a layer rejects those cut from maps; {refit}")
    if found.fingerprint != fingerprint(classifier.network):
        raise OtherWeightsError(f"{path} was fitted to other weights than {model}; {refit}")
    return found
