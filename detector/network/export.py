"""GoogLeNet as an ONNX graph that other runtimes read, local response normalisation as ONNX's one operator for it.

In: a network in evaluation mode.  Out: the bytes of a model with input "images" [N, 3, S, S] float32, scaled as the
weights' `InputConvention` says, N free, and output "logits" [N, K]; with a box-regression layer also "offsets"
[N, K - 1, 4]. Batch normalisation is folded first.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from detector.network.folding import fold_batch_norm
from detector.network.googlenet import GoogLeNet, Heads
from detector.network.lrn import ALPHA, BETA, SIZE, LocalResponseNorm

OPSET = 18
INSTALL = "ONNX needs more packages: pip install onnx onnxscript onnxruntime  (or the extra: pip install -e '.[onnx]')"


@torch.library.custom_op("googlenet_rcnn::local_response_norm", mutates_args=())
def _one_operator(x: Tensor) -> Tensor:
    return torch.nn.functional.local_response_norm(x, SIZE, ALPHA, BETA, 1.0)


@_one_operator.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class _OneOperatorNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _one_operator(x)
        return result


class _WithOffsets(nn.Module):
    def __init__(self, network: GoogLeNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Heads:
        return self.network.heads(self.network.trunk(x))


def to_onnx(network: GoogLeNet, size: int = 224) -> bytes:
    """Export a network as an ONNX model.

    Args:
        network: Any variant; it is not changed. Auxiliary heads are left out.
        size: Side S of the images, px.

    Raises:
        ImportError: onnx or onnxscript is not installed; names the command.
    """
    try:
        import onnx  # noqa: F401 - torch's exporter needs it
        import onnxscript
    except ImportError as error:
        raise ImportError(INSTALL) from error
    operators: Any = getattr(onnxscript, f"opset{OPSET}")

    def translate(x: Any) -> Any:
        return operators.LRN(x, alpha=ALPHA, beta=BETA, bias=1.0, size=SIZE)

    network = fold_batch_norm(copy.deepcopy(network).eval()).cpu().float()
    for name, module in list(network.named_modules()):
        if isinstance(module, LocalResponseNorm):
            network.set_submodule(name, _OneOperatorNorm())
    program = torch.onnx.export(
        _WithOffsets(network).eval() if network.regression else network,
        (torch.zeros(2, 3, size, size),),
        input_names=["images"],
        output_names=["logits", "offsets"] if network.regression else ["logits"],
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim("N")},),
        custom_translation_table={torch.ops.googlenet_rcnn.local_response_norm.default: translate},
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model: bytes = program.model_proto.SerializeToString()
    return model


class OnnxNetwork:
    """A network that onnxruntime runs on the CPU, on as many threads as torch uses.

    Raises:
        ImportError: onnxruntime is not installed; names the command.
    """

    def __init__(self, model: bytes) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(INSTALL) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, x: Tensor) -> Heads:
        """Images [N, 3, S, S] float32 -> logits [N, K], and box offsets [N, K - 1, 4] if the model has them."""
        logits, *offsets = map(torch.from_numpy, self._session.run(None, {"images": x.contiguous().numpy()}))
        return Heads(logits, offsets[0] if offsets else None)


def largest_difference(network: GoogLeNet, model: bytes, images: Tensor) -> float:
    """The largest difference between torch's and onnxruntime's logits of images, as a share of the largest logit."""
    with torch.inference_mode():
        expected = copy.deepcopy(network).eval()(images)
    return float((OnnxNetwork(model)(images).logits - expected).abs().max() / expected.abs().max())
