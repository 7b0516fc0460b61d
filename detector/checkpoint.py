"""A trained classifier, of regions or of whole images, in one file: weights, architecture, input, classes, provenance.

The file is safetensors (no pickle); everything but the tensors is JSON in its header, under metadata "header".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from detector.config import PRESETS, peek
from detector.data.ground_truth import ClassTable
from detector.invocation import command
from detector.model_files import (
    CLASSIFIERS,
    IMAGE_FORMAT,
    REGION_FORMAT,
    CheckpointError,
    file_sha256,
    find_weights,
    ranges_file,
    read_header,
    read_metadata,
    shipped_names,
    suggestion,
)
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention
from detector.network.pretrained import load_caffe, load_torchvision
from detector.network.published import TORCHVISION, ZOO, fetch_torchvision, read_torch
from detector.network.quantised import Ranges
from detector.regions.maps import SharedConfig
from detector.regions.warp import RegionConfig
from proposals.files import write_whole


@dataclass(frozen=True)
class RegionClassifier:
    """A network that classifies regions into K classes and background, and everything needed to use it.

    Attributes:
        network: Network of K + 1 logits; 0 is background, 1 + label is a class.
        convention: Scaling of its input.
        regions: Size and context of the squares that boxes are warped to.
        classes: The K classes.
        provenance: Free text by topic: data, recipe, command, results.
        shared: Settings of regions cut from maps of the whole image; None if each region is warped by itself.
        ranges: Largest activation of each layer of the trunk, by the layer's name, for precision=int8; None if the
            weights were not calibrated.
    """

    network: GoogLeNet
    convention: InputConvention
    regions: RegionConfig
    classes: ClassTable
    provenance: dict[str, str] = field(default_factory=dict)
    shared: SharedConfig | None = None
    ranges: Ranges | None = None

    def __post_init__(self) -> None:
        if self.network.config.classes != len(self.classes) + 1:
            raise ValueError(
                f"a network of {self.network.config.classes} outputs does not fit {len(self.classes)} classes "
                "and background"
            )


@dataclass(frozen=True)
class ImageClassifier:
    """A network that classifies whole images into K classes, and everything needed to use it.

    Attributes:
        network: Network of K logits.
        convention: Scaling of its input.
        size: Side of the square it was trained on, px.
        classes: K names, WordNet ids for ImageNet; empty if the weights' file states none.
        provenance: Free text by topic: data, recipe, command, results.
    """

    network: GoogLeNet
    convention: InputConvention
    size: int = 224
    classes: tuple[str, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.classes and self.network.config.classes != len(self.classes):
            raise ValueError(f"a network of {self.network.config.classes} outputs, {len(self.classes)} class names")


def save_checkpoint(path: Path, classifier: RegionClassifier | ImageClassifier, *, half: bool = False) -> None:
    """Write a classifier; the file appears whole or not at all.

    Args:
        path: File to write, .safetensors by custom.
        classifier: The classifier; its auxiliary heads, which only training uses, are left out.
        half: Store float16, half the size.
    """
    state = {
        name: tensor.to(torch.float16 if half and tensor.is_floating_point() else tensor.dtype).contiguous().cpu()
        for name, tensor in classifier.network.state_dict().items()
        if not name.startswith("auxiliary")
    }
    network = asdict(classifier.network.config)
    cells = network.pop("regression_cells")  # follows from the file's tensors
    header: dict[str, Any] = {
        "network": network | {"auxiliary_heads": 0},
        "convention": asdict(classifier.convention),
        "provenance": classifier.provenance,
    }
    if isinstance(classifier, RegionClassifier):
        format_ = REGION_FORMAT
        shared = asdict(classifier.shared) if classifier.shared else None
        header |= {"regions": asdict(classifier.regions), "classes": asdict(classifier.classes), "shared": shared}
        header["regression"] = cells > 0
    else:
        format_ = IMAGE_FORMAT
        header |= {"size": classifier.size, "classes": classifier.classes}
    write_weights(path, state, format_, header)


def write_weights(path: Path, state: dict[str, Tensor], format_: str, header: dict[str, Any]) -> None:
    """Write tensors and a JSON header as safetensors; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        # Not save_file: it leaves a file that only its owner can read.
        temporary.write_bytes(save(state, metadata={"format": format_, "header": json.dumps(header)}))


def find_checkpoint(name: str, members: int = 1) -> Path:
    """Find a checkpoint by its path, by the folder of its run, or by name: that of shipped weights, or torchvision.

    Args:
        name: A file, the folder of a run, the name of weights that this package ships, or "torchvision", whose
            GoogLeNet is then downloaded.
        members: Size of the ensemble that the file belongs to; it goes into the suggested command.

    Raises:
        CheckpointError: there is neither, and the message gives the nearest names, the shipped weights and how to
            train one; or the run has no best weights yet, and the message says how far it is.
    """
    found = _found(name)
    if found is None:
        names = ", ".join(shipped_names(CLASSIFIERS)) or "none"
        near, training = suggestion(name, CLASSIFIERS), _training_command(Path(name).expanduser(), members)
        raise CheckpointError(f"no checkpoint {name}{near and '.'}{near} (shipped: {names}); train one: {training}")
    return found


def find_pretrained(name: str) -> Path:
    """Return the file of the weights that a training begins with.

    Args:
        name: A file or a name, as in find_checkpoint.

    Raises:
        CheckpointError: there is none, and the message gives the nearest names and sources; or as find_checkpoint.
    """
    found = _found(name)
    if found is None:
        near = suggestion(name, CLASSIFIERS)
        raise CheckpointError(
            f"no pretrained weights {name}{'.' if near else ';'}{near} set init=FILE (BVLC's GoogLeNet: {ZOO}), "
            f"or init={TORCHVISION}, which downloads torchvision's once"
        )
    return found


def _found(name: str) -> Path | None:
    found = find_weights(name)
    return fetch_torchvision() if found is None and name == TORCHVISION else found


def _training_command(path: Path, members: int) -> str:
    """Return the command that trains a missing checkpoint: runs/NAME/best.safetensors, or member 3 in runs/NAME-3."""
    run, _, number = path.parent.name.rpartition("-")
    is_member = number.isdecimal() and members > 1
    config = f"{run if is_member else path.parent.name or path.name}.yaml"
    if not any((folder / config).is_file() and peek(folder / config, (), "init") for folder in PRESETS):
        config = "regions_voc.yaml"
    ending = f" members={members} --resume auto" if is_member else ""
    return f"{command('train_classifier')} --config {Path(config).stem}{ending}"


def load_checkpoint(path: Path) -> RegionClassifier:
    """Read a region classifier, in float32 and evaluation mode, on the CPU.

    Raises:
        CheckpointError: the file is missing, is no safetensors file, is another kind of checkpoint, or its tensors do
            not fit the network that its header describes.
    """
    metadata = read_metadata(path)
    if metadata.get("format") != REGION_FORMAT:
        raise CheckpointError(
            f"{path} is no region classifier of this project; train_classifier writes them, "
            "and takes weights of other origin as init"
        )
    with fitting(path):
        header = read_header(path, metadata)
        network, convention = _network(path, header)
        classes = ClassTable(**{name: tuple(values) for name, values in header["classes"].items()})
        regions, shared = RegionConfig(**header["regions"]), header.get("shared")
        shared = SharedConfig(**shared) if shared else None
        return RegionClassifier(network, convention, regions, classes, header["provenance"], shared, read_ranges(path))


def load_any_classifier(path: Path) -> ImageClassifier:
    """Read weights of any origin as a classifier of whole images, in float32 and evaluation mode, on the CPU.

    Args:
        path: A safetensors file of ours, or with the layer names of Caffe or of torchvision; BVLC's .onnx;
            torchvision's .pth. The classes of a region classifier are "background" and its own.

    Raises:
        CheckpointError: the file is missing, is no safetensors file or none of these, or its tensors do not fit.
    """
    if path.suffix == ".onnx":
        return ImageClassifier(*load_caffe(path))
    if path.suffix == ".pth":
        return ImageClassifier(*load_torchvision(read_torch(path), str(path)))
    metadata = read_metadata(path)
    with fitting(path):
        if metadata.get("format") == REGION_FORMAT:
            regions = load_checkpoint(path)
            regions.network.set_regression(None)
            names = ("background", *regions.classes.names)
            return ImageClassifier(regions.network, regions.convention, regions.regions.size, names, regions.provenance)
        if metadata.get("format") == IMAGE_FORMAT:
            header = read_header(path, metadata)
            network, convention = _network(path, header)
            return ImageClassifier(network, convention, header["size"], tuple(header["classes"]), header["provenance"])
        tensors = load_file(path)
        if "loss3/classifier.weight" in tensors:
            return ImageClassifier(*load_caffe(path))
        if "inception3a.branch1.conv.weight" in tensors:
            return ImageClassifier(*load_torchvision(tensors, str(path)))
    raise CheckpointError(
        f"{path}: neither weights of train_classifier nor of Caffe's or torchvision's GoogLeNet; "
        f"its first tensor is {min(tensors, default='none')!r}"
    )


def _network(path: Path, header: dict[str, Any]) -> tuple[GoogLeNet, InputConvention]:
    convention = InputConvention(**{name: tuple(values) for name, values in header["convention"].items()})
    tensors = load_file(path)
    cells = tensors["regression.weight"].shape[1] // tensors["fc.weight"].shape[1] if header.get("regression") else 0
    with torch.device("meta"):  # no memory, and no numbers drawn from the caller's generator
        network = GoogLeNet(GoogLeNetConfig(**header["network"], regression_cells=cells))
    fill(network, tensors)
    return network.eval(), convention


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load tensors into a module that was built without memory, in float32 and with channels last.

    Raises:
        RuntimeError: a tensor is missing, unknown or of another shape.
    """
    # Copies: what safetensors gives is a view of the file, which another program may cut short.
    own = {
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in tensors.items()
    }
    module.load_state_dict(own, assign=True)
    module.to(memory_format=torch.channels_last)


def write_ranges(weights: Path, ranges: Ranges) -> Path:
    """Write the ranges of a network's activations beside its weights; returns the file.

    Args:
        weights: The weights' file; its content's SHA-256 is stored too, so that ranges never meet other weights.
        ranges: What `detector.network.quantised.calibrate` found.
    """
    path = ranges_file(weights)
    rounded = {name: float(f"{top:.6g}") for name, top in ranges.items()}
    with write_whole(path) as temporary:
        temporary.write_text(json.dumps({"weights_sha256": file_sha256(weights), "ranges": rounded}, indent=1) + "\n")
    return path


def read_ranges(weights: Path) -> dict[str, float] | None:
    """Read the ranges beside a weights file; None where there are none, or they belong to other weights.

    Raises:
        CheckpointError: the file of ranges is damaged.
    """
    path = ranges_file(weights)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        ranges = {str(name): float(top) for name, top in content["ranges"].items()}
        if not all(0 < top < math.inf for top in ranges.values()):
            raise ValueError("a range is not positive")
        return ranges if content["weights_sha256"] == file_sha256(weights) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} holds no ranges of activations ({error}); delete it, and fit_cascade writes it again"
        ) from error


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Turn any disagreement between tensors and header into a CheckpointError of one line."""
    try:
        yield
    except CheckpointError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its tensors and its header do not fit: {reason}") from error
