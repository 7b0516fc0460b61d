"""MultiBox on a GoogLeNet trunk: its weights in one file, and images -> proposals.

The file is safetensors like a classifier's (detector.checkpoint). Where the trunk is a classifier's, untouched, it
holds the head alone, and names that classifier and its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from detector.checkpoint import (
    SHIPPED,
    CheckpointError,
    fill,
    find_checkpoint,
    find_pretrained,
    load_any_classifier,
    write_weights,
)
from detector.data.image import Image
from detector.device import choose_precision
from detector.invocation import command
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention, network_input
from proposals.multibox.head import MultiBox, MultiBoxConfig, MultiBoxHead, decode
from proposals.multibox.views import inside_view, select, views
from proposals.result import Found, Source
from proposals.selective.colour import to_rgb
from proposals.settings import MultiBoxSettings

FORMAT = "googlenet-rcnn multibox 1"
BATCH = 8  # views at a time


@dataclass(frozen=True)
class MultiBoxModel:
    """A network that proposes boxes, and all it takes to use it.

    Attributes:
        network: trunk and head, in evaluation mode.
        trunk: the architecture its trunk belongs to.
        convention: how it wants its input scaled.
        size: side of the square that an image is warped to, px.
        trunk_file: name of the classifier whose trunk this is, untouched; empty where the trunk is its own.
        trunk_sha256: of that file.
        provenance: free text by topic: data, recipe, command, results.
    """

    network: MultiBox
    trunk: GoogLeNetConfig
    convention: InputConvention
    size: int = 224
    trunk_file: str = ""
    trunk_sha256: str = ""
    provenance: dict[str, str] = field(default_factory=dict)

    def propose(
        self,
        images: Sequence[NDArray[Any]],
        *,
        limit: int = 200,
        max_iou: float = 1.0,
        crops: int = 0,
        min_side: float = 10.0,
        device: torch.device | str = "cpu",
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """The best boxes of each image, with their confidences; [H, W, 3] uint8 RGB -> [N, 4] px, [N] in (0, 1).

        Args:
            images: of any sizes, or other arrays as proposals.selective.colour.to_rgb takes them; views of all are
                computed in common batches.
            limit: N, at most.
            max_iou: overlap with a better box above this drops one; 1 keeps all.
            crops: look at overlapping squares of each image too, as proposals.multibox.views says.
            min_side: smaller boxes are dropped, px; at most the image's own shorter side.
            device: where the network is.
        """
        if not images:
            return []
        images = [to_rgb(image) for image in images]
        # Of the whole image all take part: those that suppression drops make room.
        keep = self.network.head.config.priors
        planned = [views(image.shape[1], image.shape[0], keep, crops=crops) for image in images]
        squares = [
            warp_view(image, view.box, self.size) for image, row in zip(images, planned, strict=True) for view in row
        ]
        shares, confidences = self._forward(squares, device)  # [V, P, 4], [V, P]
        results = []
        start = 0
        for image, row in zip(images, planned, strict=True):
            height, width, _ = image.shape
            boxes, scores = [], []
            for view, share, score in zip(row, shares[start:], confidences[start:], strict=False):
                x1, y1, x2, y2 = view.box
                found = share * np.array([x2 - x1, y2 - y1] * 2, np.float32) + np.array([x1, y1] * 2, np.float32)
                found = np.clip(found, 0, np.array([width, height] * 2, np.float32))
                inside = np.flatnonzero(inside_view(found, view, width, height))
                best = inside[np.argsort(-score[inside], kind="stable")[: view.keep]]
                boxes.append(found[best])
                scores.append(score[best])
            start += len(row)
            all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
            smallest = min(min_side, min(width, height))
            kept = select(all_boxes, all_scores, limit=limit, max_iou=max_iou, min_side=smallest)
            results.append((all_boxes[kept], all_scores[kept]))
        return results

    def _forward(
        self, squares: Sequence[Image], device: torch.device | str
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """[V, P, 4] shares of the view, clipped to it, and [V, P] confidences."""
        boxes, confidences = [], []
        dtype = next(self.network.trunk.parameters()).dtype
        with torch.inference_mode():
            for start in range(0, len(squares), BATCH):
                x = network_input(np.stack(squares[start : start + BATCH]), self.convention, device)
                offsets, logits = self.network(x.to(dtype))
                boxes.append(decode(offsets, self.network.head.priors).clamp(0, 1).float().cpu())
                confidences.append(logits.float().sigmoid().cpu())
        return torch.cat(boxes).numpy(), torch.cat(confidences).numpy()


def find_multibox(name: str) -> Path:
    """A file, or the name of weights that this package ships.

    Raises:
        CheckpointError: neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = SHIPPED / f"{name}.safetensors"
    if shipped.is_file():
        return shipped
    raise CheckpointError(
        f"no MultiBox weights {name}; train some: {_training_command(path)}, "
        "or leave MultiBox out: proposals.multibox.weights=''"
    )


def _training_command(path: Path) -> str:
    """The command that trains runs/NAME/best.safetensors, where NAME is a preset."""
    name = "ilsvrc_multibox" if path.parent.name == "ilsvrc_multibox" else "multibox_voc"
    return f"{command('train_multibox')} --config {name}"


def weights_sha256(name: str) -> str:
    """What the boxes of these weights depend on; raises as find_multibox."""
    return file_sha256(find_multibox(name))


def load_source(settings: MultiBoxSettings, device: torch.device | str = "cpu") -> Source:
    """MultiBox as proposals.merging.propose takes it.

    Raises:
        CheckpointError: as find_multibox and load_multibox.
    """
    model = load_multibox(find_multibox(settings.weights))
    model.network.to(device)
    model.network.trunk.to(choose_precision(settings.precision, torch.device(device)))

    def source(image: NDArray[np.uint8]) -> Found:
        (found,) = model.propose(
            [image], limit=settings.limit, max_iou=settings.max_iou, crops=settings.crops, device=device
        )
        return found

    return source


def warp_view(image: Image, box: tuple[int, int, int, int], size: int) -> Image:
    """A part of an image warped to a square, not keeping its proportions (google/multibox); [size, size, 3] uint8."""
    x1, y1, x2, y2 = box
    part = image[y1:y2, x1:x2]
    shrinks = part.shape[0] > size and part.shape[1] > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, (size, size), interpolation=method), dtype=np.uint8)


def trunk_of(name: str) -> tuple[GoogLeNet, InputConvention]:
    """The network whose trunk MultiBox stands on: weights of any origin.

    Raises:
        CheckpointError: no such file, or no classifier.
    """
    classifier = load_any_classifier(find_pretrained(name))
    return classifier.network, classifier.convention


def save_multibox(path: Path, model: MultiBoxModel, *, half: bool = False) -> None:
    """Write the model; the file appears whole or not at all.

    Args:
        path: ends in .safetensors by custom.
        model: with a trunk_file its trunk is not written.
        half: store float16, half the size. Priors stay float32.
    """
    module = model.network.head if model.trunk_file else model.network

    def stored(name: str, tensor: Tensor) -> Tensor:
        return tensor.half() if half and tensor.is_floating_point() and "priors" not in name else tensor

    state = {name: stored(name, tensor).cpu().contiguous() for name, tensor in module.state_dict().items()}
    header = {
        "head": asdict(model.network.head.config),
        "channels": model.network.head.fc1.in_features // 9,
        "network": asdict(model.trunk) | {"auxiliary_heads": 0},
        "convention": asdict(model.convention),
        "size": model.size,
        "trunk_file": model.trunk_file,
        "trunk_sha256": model.trunk_sha256,
        "provenance": model.provenance,
    }
    write_weights(path, state, FORMAT, header)


def load_multibox(path: Path) -> MultiBoxModel:
    """Read a model, in float32 and evaluation mode, on the CPU.

    Raises:
        CheckpointError: no such file, another kind of file, tensors that do not fit, or the classifier whose trunk it
            needs is absent or another one.
    """
    if not path.is_file():
        raise CheckpointError(f"no MultiBox weights {path}; train some: {_training_command(path)}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} holds no MultiBox of this project; train_multibox writes them")
    try:
        header: dict[str, Any] = json.loads(metadata["header"])
        config = GoogLeNetConfig(**header["network"])
        own_trunk = not header["trunk_file"]
        priors = tensors["head.priors" if own_trunk else "priors"]
        with torch.device("meta"):  # as in checkpoint._network
            network = GoogLeNet(config) if own_trunk else None
            head = MultiBoxHead(header["channels"], priors, MultiBoxConfig(**header["head"]))
        multibox = MultiBox((network or _checked_trunk(path, header)).trunk, head)
        fill(multibox if own_trunk else multibox.head, tensors)
        return MultiBoxModel(
            multibox.eval(),
            config,
            InputConvention(**{name: tuple(values) for name, values in header["convention"].items()}),
            header["size"],
            header["trunk_file"],
            header["trunk_sha256"],
            header["provenance"],
        )
    except CheckpointError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its tensors and its header do not fit: {reason}") from error


def file_sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked_trunk(path: Path, header: dict[str, Any]) -> GoogLeNet:
    name = header["trunk_file"]
    beside = path.parent / f"{name}.safetensors"
    found = beside if beside.is_file() and not beside.samefile(path) else find_checkpoint(name)
    if file_sha256(found) != header["trunk_sha256"]:
        raise CheckpointError(f"{path} stands on the trunk of {name}, and {found} is another one; train MultiBox anew")
    return load_any_classifier(found).network
