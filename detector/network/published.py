"""Weights that others publish: torchvision's GoogLeNet, fetched when asked for; BVLC's, read from its ONNX file.

Neither is read by an unrestricted pickle. The ONNX model zoo's file is BVLC's Caffe model by way of Caffe2; its README
subtracts the means (123.68, 116.779, 103.939) of VGG, BVLC trained with (123, 117, 104).
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from torch import Tensor

from proposals.errors import UserError

TORCHVISION = "torchvision"
"""Name of torchvision's weights in the setting `init`."""
ZOO = "https://huggingface.co/onnxmodelzoo/googlenet-9/resolve/main/googlenet-9.onnx"
"""BVLC's GoogLeNet in the ONNX model zoo, 28 MB."""


def fetch_torchvision() -> Path:
    """Return torchvision's weights file in torch hub's cache; download it, and check its hash, where it is not there.

    Raises:
        UserError: It cannot be downloaded; the message says how to do so by hand.
    """
    from torchvision.models import GoogLeNet_Weights

    url = str(GoogLeNet_Weights.IMAGENET1K_V1.url)
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        try:
            torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:  # no network; another hash
            raise UserError(
                f"torchvision's GoogLeNet cannot be downloaded: {error}\n"
                f"  fetch {url} where there is a network and copy it to {path}"
            ) from error
    return path


def read_torch(path: Path) -> dict[str, Tensor]:
    """Read a state dict that torch saved, by the unpickler that makes nothing but tensors.

    Raises:
        UserError: The file is not a state dict.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: no state dict of torch, or a damaged one; delete it to fetch it again") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{path}: holds something else than a state dict")
    return state


def read_onnx(path: Path) -> dict[str, Tensor]:
    """Read the weights of an ONNX file under Caffe's names.

    The model zoo's file has Caffe2's: `conv1/7x7_s2_w_0` is Caffe's `conv1/7x7_s2.weight`, `_b_0` is `.bias`.

    Raises:
        UserError: The package onnx is not installed, or it cannot read the file.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError(f"{path}: reading it takes the package onnx: pip install onnx") from error
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
        tensors = {tensor.name: onnx.numpy_helper.to_array(tensor).copy() for tensor in graph.initializer}
    except (OSError, DecodeError, ValueError, TypeError) as error:
        raise UserError(f"{path}: no ONNX model, or a damaged one") from error
    parts = {"w": "weight", "b": "bias"}
    return {
        re.sub(r"_([wb])_0$", lambda match: f".{parts[match[1]]}", name): torch.from_numpy(values)
        for name, values in tensors.items()
        if values.dtype.kind == "f"  # others are shapes
    }
