"""MultiBox on a GoogLeNet trunk: its weights in one file, and images -> proposals (paper §8).

In: images [H, W, 3] uint8 RGB.  Out: boxes [N, 4] px and confidences [N] in (0, 1), best first.
The file is safetensors like a classifier's (detector.checkpoint). Where the trunk is an unchanged classifier's, the
file holds the head alone, and names that classifier and its SHA-256.

V views, P priors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from detector.checkpoint import (
    fill,
    find_checkpoint,
    find_pretrained,
    fitting,
    load_any_classifier,
    read_ranges,
    write_weights,
)
from detector.data.image import Image
from detector.invocation import command
from detector.model_files import (
    MULTIBOX_FORMAT,
    CheckpointError,
    file_sha256,
    find_weights,
    read_header,
    read_metadata,
    shipped_names,
    suggestion,
)
from detector.network.fastest import scoring_precision
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention, network_input
from detector.network.quantised import prepare_trunk
from proposals.multibox.head import MultiBox, MultiBoxConfig, MultiBoxHead, decode
from proposals.multibox.views import inside_view, select, views
from proposals.result import Found, Source
from proposals.selective.colour import to_rgb
from proposals.settings import MultiBoxSettings

BATCH = 8  # views per batch
MIN_SIDE = 10  # px; narrower and lower boxes are dropped, except in images that are themselves smaller


@dataclass(frozen=True)
class MultiBoxModel:
    """A network that proposes boxes, and everything needed to use it.

    Attributes:
        network: Trunk and head, in evaluation mode.
        trunk: Architecture of the trunk.
        convention: Scaling of its input.
        size: Side of the square to which a view is warped, px.
        trunk_file: Name of the classifier whose unchanged trunk this is; empty where the trunk is its own.
        trunk_sha256: SHA-256 of that classifier's file.
        provenance: Free text by topic: data, recipe, command, results.
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
        device: torch.device | str = "cpu",
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Propose the best boxes of each image, with their confidences.

        Args:
            images: [H, W, 3] uint8 RGB of any sizes, or other arrays that proposals.selective.colour.to_rgb accepts.
                The views of all images share batches.
            limit: Most boxes per image.
            max_iou: A box that overlaps a better one by more than this IoU is dropped; 1 keeps all.
            crops: Squares of each image that the network sees too: 0, 1 or 2, as in proposals.multibox.views.
            device: Device of the network.

        Returns:
            For each image boxes [N, 4] px and confidences [N] in (0, 1), best first.
        """
        if not images:
            return []
        images = [to_rgb(image) for image in images]
        # Keep all P boxes of the whole image: suppression removes some, and the limit applies after it.
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
            kept = select(all_boxes, all_scores, limit=limit, max_iou=max_iou, min_side=min(MIN_SIDE, width, height))
            results.append((all_boxes[kept], all_scores[kept]))
        return results

    def _forward(
        self, squares: Sequence[Image], device: torch.device | str
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return boxes [V, P, 4] as shares of their view, clipped to it, and confidences [V, P]."""
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
    """Find a weights file by its path or by the folder of its run, or shipped weights by their name.

    Raises:
        CheckpointError: there is none, and the message gives the nearest names, the shipped weights and how to train
            some; or the run has no best weights yet.
    """
    found = find_weights(name)
    if found is None:
        near, shipped = suggestion(name, [MULTIBOX_FORMAT]), shipped_names([MULTIBOX_FORMAT])
        raise CheckpointError(
            f"no MultiBox weights {name}{'.' if near else ';'}{near} take the shipped ones: "
            f"proposals.multibox.weights={' or '.join(shipped)}, train some: {_training_command(Path(name))}, "
            "or leave MultiBox out: proposals.multibox.weights=''"
        )
    return found


def _training_command(path: Path) -> str:
    """Return the command that trains runs/NAME/best.safetensors, where NAME is a preset."""
    name = "ilsvrc_multibox" if path.parent.name == "ilsvrc_multibox" else "multibox_voc"
    return f"{command('train_multibox')} --config {name}"


def weights_sha256(name: str) -> str:
    """Return the SHA-256 of the weights' file; it raises the errors of find_multibox."""
    return file_sha256(find_multibox(name))


def load_source(settings: MultiBoxSettings, device: torch.device | str = "cpu") -> Source:
    """Load MultiBox as a source for proposals.merging.propose.

    Raises:
        CheckpointError: the same as in find_multibox and load_multibox.
        DeviceError: there is no int8 for these weights or on this device.
    """
    path, where = find_multibox(settings.weights), torch.device(device)
    model, ranges = load_multibox(path), read_ranges(path)
    model.network.to(where)
    precision = scoring_precision(settings.precision, where, calibrated=ranges is not None)
    assert isinstance(model.network.trunk, nn.Sequential)
    model.network.trunk, _ = prepare_trunk(model.network.trunk, precision, where, ranges)

    def source(image: NDArray[np.uint8]) -> Found:
        (found,) = model.propose(
            [image], limit=settings.limit, max_iou=settings.max_iou, crops=settings.crops, device=device
        )
        return found

    return source


def warp_view(image: Image, box: tuple[int, int, int, int], size: int) -> Image:
    """Warp a part of an image to a square [size, size, 3] uint8, without its aspect ratio (google/multibox)."""
    x1, y1, x2, y2 = box
    part = image[y1:y2, x1:x2]
    shrinks = part.shape[0] > size and part.shape[1] > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, (size, size), interpolation=method), dtype=np.uint8)


def trunk_of(name: str) -> tuple[GoogLeNet, InputConvention]:
    """Load the classifier whose trunk MultiBox uses, from weights of any origin, and its input convention.

    Raises:
        CheckpointError: there is no such file, or it holds no classifier.
    """
    classifier = load_any_classifier(find_pretrained(name))
    return classifier.network, classifier.convention


def save_multibox(path: Path, model: MultiBoxModel, *, half: bool = False) -> None:
    """Write the model; the file appears whole or not at all.

    Args:
        path: File to write, by convention *.safetensors.
        model: The model; with a trunk_file its trunk is not written.
        half: Store float16, half the size. Priors stay float32.
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
    write_weights(path, state, MULTIBOX_FORMAT, header)


def load_multibox(path: Path) -> MultiBoxModel:
    """Read a model, in float32 and evaluation mode, on the CPU.

    Raises:
        CheckpointError: the file is missing or of another kind, its tensors do not fit, or the classifier whose trunk
            it needs is missing or another one.
    """
    if not path.is_file():
        raise CheckpointError(f"no MultiBox weights {path}; train some: {_training_command(path)}")
    metadata = read_metadata(path)
    if metadata.get("format") != MULTIBOX_FORMAT:
        raise CheckpointError(f"{path} holds no MultiBox of this project; train_multibox writes them")
    with fitting(path):
        header = read_header(path, metadata)
        tensors = load_file(path)
        config = GoogLeNetConfig(**header["network"])
        own_trunk = not header["trunk_file"]
        priors = tensors["head.priors" if own_trunk else "priors"]
        with torch.device("meta"):  # no memory, and no numbers drawn from the caller's generator
            network = GoogLeNet(config) if own_trunk else None
            head = MultiBoxHead(header["channels"], priors, MultiBoxConfig(**header["head"]))
        multibox = MultiBox((network or _checked_trunk(path, header)).trunk, head)
        fill(multibox if own_trunk else multibox.head, tensors)
        convention = InputConvention(**{name: tuple(values) for name, values in header["convention"].items()})
        rest = (header[key] for key in ("size", "trunk_file", "trunk_sha256", "provenance"))
        return MultiBoxModel(multibox.eval(), config, convention, *rest)


def _checked_trunk(path: Path, header: dict[str, Any]) -> GoogLeNet:
    name = header["trunk_file"]
    beside = path.parent / f"{name}.safetensors"
    found = beside if beside.is_file() and not beside.samefile(path) else find_checkpoint(name)
    if file_sha256(found) != header["trunk_sha256"]:
        raise CheckpointError(f"{path} needs the trunk of {name}, and {found} is another one; train MultiBox again")
    return load_any_classifier(found).network
