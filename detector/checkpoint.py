"""A trained region classifier in one file: weights, architecture, input, classes and provenance.

The file is safetensors (no pickle); everything but the tensors is JSON in its header, under metadata "header".
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from detector.data.ground_truth import ClassTable
from detector.googlenet import GoogLeNet, GoogLeNetConfig, InputConvention
from detector.regions import RegionConfig

FORMAT = "googlenet-rcnn region classifier 1"

SHIPPED = Path(__file__).parent / "weights"


class CheckpointError(ValueError):
    """A checkpoint that is missing or cannot be used; one line with the file and what to do."""


@dataclass(frozen=True)
class RegionClassifier:
    """A network that tells K classes and background apart, and all it takes to use it.

    Attributes:
        network: K + 1 logits; 0 is background, 1 + label is a class.
        convention: how it wants its input scaled.
        regions: how boxes are warped for it.
        classes: the K classes.
        provenance: free text by topic: data, recipe, command, results.
    """

    network: GoogLeNet
    convention: InputConvention
    regions: RegionConfig
    classes: ClassTable
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.network.config.classes != len(self.classes) + 1:
            raise ValueError(
                f"a network of {self.network.config.classes} outputs cannot tell {len(self.classes)} classes "
                "and background apart"
            )


def save_checkpoint(path: Path, classifier: RegionClassifier, *, half: bool = False) -> None:
    """Write a region classifier; the file appears whole or not at all.

    Args:
        path: ends in .safetensors by custom.
        classifier: auxiliary heads, which only training uses, are left out.
        half: store float16, half the size.
    """
    state = {
        name: tensor.to(torch.float16 if half and tensor.is_floating_point() else tensor.dtype).contiguous().cpu()
        for name, tensor in classifier.network.state_dict().items()
        if not name.startswith("auxiliary")
    }
    header = {
        "network": asdict(classifier.network.config) | {"auxiliary_heads": 0},
        "convention": asdict(classifier.convention),
        "regions": asdict(classifier.regions),
        "classes": asdict(classifier.classes),
        "provenance": classifier.provenance,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Not save_file: it leaves a file that only its owner can read.
        temporary.write_bytes(save(state, metadata={"format": FORMAT, "header": json.dumps(header)}))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def find_checkpoint(name: str) -> Path:
    """A file, or the name of weights that this package ships.

    Raises:
        CheckpointError: neither; says what is shipped and how to train one.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = SHIPPED / f"{name}.safetensors"
    if shipped.is_file():
        return shipped
    names = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.safetensors"))) or "none"
    raise CheckpointError(
        f"no checkpoint {name} (shipped: {names}); train one: "
        "python tools/train_classifier.py --config configs/regions_voc.yaml"
    )


def load_checkpoint(path: Path) -> RegionClassifier:
    """Read a region classifier, in float32 and evaluation mode, on the CPU.

    Raises:
        CheckpointError: the file is missing, is no safetensors file, is another kind of checkpoint, or its tensors do
            not fit the network that its header describes.
    """
    header = _read_header(path)
    try:
        network = GoogLeNet(GoogLeNetConfig(**header["network"]))
        classes = ClassTable(**{name: tuple(values) for name, values in header["classes"].items()})
        convention = InputConvention(**{name: tuple(values) for name, values in header["convention"].items()})
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
        network.load_state_dict(state)
        return RegionClassifier(
            network.eval(), convention, RegionConfig(**header["regions"]), classes, header["provenance"]
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its tensors and its header do not fit: {reason}") from error


def _read_header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no region classifier of this project; tools/train_classifier.py writes them, "
            "and takes weights of other origin as init"
        )
    try:
        header: dict[str, Any] = json.loads(metadata["header"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: its header is damaged: {error}") from error
    return header
