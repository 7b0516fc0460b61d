"""Classify whole images: print the five most probable classes of each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detector.commands.arguments import add_device, command_parser, start

EXAMPLES = """
classify examples/chelsea.jpg
classify examples/chelsea.jpg --models torchvision
classify photo.jpg --models a.safetensors b.safetensors --crops 144
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("classify", __doc__, EXAMPLES)
    result.add_argument("image", nargs="+", help="image files and folders")
    result.add_argument(
        "--models",
        nargs="+",
        metavar="FILE",
        default=["googlenet_voc"],
        help="weights to average: files, shipped names, or torchvision, which is downloaded (default: googlenet_voc)",
    )
    result.add_argument("--crops", type=int, choices=(1, 10, 144), default=10, help="(default: %(default)s)")
    add_device(result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Classify and print; return the exit code."""
    stopped = "the images printed above are done"
    return start(parser(), arguments, _work, stopped=stopped, printed_only=True)


def _work(options: argparse.Namespace) -> int:
    from detector.commands.opencv import check_opencv

    check_opencv()
    import numpy as np

    from detector.checkpoint import find_checkpoint, load_any_classifier
    from detector.class_order import in_names_of
    from detector.classification.ensemble import classify
    from detector.commands.run import say
    from detector.data.image import read_image
    from detector.data.listing import list_images
    from detector.device import choose_device
    from proposals.errors import UserError

    listing = list_images(options.image)
    for line in (*listing.warnings, *listing.failures):
        say("classify", line)
    device = choose_device(options.device)
    members = [load_any_classifier(find_checkpoint(name)) for name in options.models]
    first = next((number for number, member in enumerate(members) if member.classes), 0)
    known, owner = members[first].classes, options.models[first]
    members = [in_names_of(member, known, (name, owner)) for name, member in zip(options.models, members, strict=True)]
    if len({member.network.config.classes for member in members}) > 1:
        raise UserError("the models tell different numbers of classes apart")
    for member in members:
        member.network.to(device)
    names = known or _imagenet_names(members[0].network.config.classes)
    failed = len(listing.failures)
    for path in listing.paths:
        try:
            image = read_image(path)
        except (UserError, OSError) as error:
            say("classify", str(error))
            failed += 1
            continue
        mean = np.mean([classify(member, image, options.crops, device=device) for member in members], axis=0)
        print(path)
        for label in np.argsort(-mean, kind="stable")[:5].tolist():
            print(f"  {mean[label]:.4f}  {names[label]}")
    return 1 if failed else 0


def _imagenet_names(count: int) -> list[str]:
    """Return ImageNet's names, which torchvision holds without a download, or numbers for another count."""
    from torchvision.models import GoogLeNet_Weights

    names = list(GoogLeNet_Weights.IMAGENET1K_V1.meta["categories"])
    return names if len(names) == count else [f"class {label}" for label in range(count)]
