"""Write a classifier as an ONNX model, checked against torch by onnxruntime."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detector.commands.arguments import command_parser, start

EXAMPLES = """
export_onnx googlenet_voc googlenet_voc.onnx
export_onnx runs/objects_voc-1/best.safetensors animals.onnx
"""
TOLERANCE = 1e-4


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("export_onnx", __doc__, EXAMPLES)
    result.add_argument("weights", help="weights of any origin: a file, or the name of shipped ones")
    result.add_argument("target", type=Path, help="the file to write")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, compare and print; return the exit code."""
    return start(parser(), arguments, _work, stopped="nothing was written")


def _work(options: argparse.Namespace) -> None:
    import torch

    from detector.checkpoint import find_checkpoint, load_any_classifier
    from detector.commands.targets import check_target
    from detector.network.export import largest_difference, to_onnx
    from proposals.errors import UserError
    from proposals.files import write_whole

    source = find_checkpoint(options.weights)
    check_target(options.target, "an ONNX model", [source])
    classifier = load_any_classifier(source)
    model = to_onnx(classifier.network, classifier.size)
    torch.manual_seed(0)
    images = 50 * torch.randn(4, 3, classifier.size, classifier.size) / max(classifier.convention.std)
    difference = largest_difference(classifier.network, model, images)
    if difference > TOLERANCE:
        raise UserError(f"onnxruntime's logits differ from torch's by {difference:.1e}; nothing was written")
    with write_whole(options.target) as temporary:
        temporary.write_bytes(model)
    convention = classifier.convention
    print(
        f"{options.target}: {len(model) / 2**20:.1f} MiB; logits as torch's to {difference:.1e} of the largest\n"
        f"input images [N, 3, {classifier.size}, {classifier.size}] float32, RGB 0-255 minus {list(convention.mean)}, "
        f"divided by {list(convention.std)}; output logits [N, {classifier.network.config.classes}]"
    )
