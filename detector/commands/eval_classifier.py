"""Measure the top-1 and top-5 error of classifiers of whole images, single or averaged (Table 3)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detector.commands.arguments import add_device, add_settings, at_least, command_parser, start

if TYPE_CHECKING:
    from detector.classification.ensemble import Predictions

EXAMPLES = """
eval_classifier ImageNet/val --models torchvision --crops 1 10
eval_classifier ImageNet/val --models a.safetensors b.safetensors --crops 144 --save runs/predictions
eval_classifier --combine runs/predictions/*.npz
eval_classifier imagenet kind=clsloc split=val --models googlenet-9.onnx
eval_classifier VOC2012 kind=voc split=val 'only=[cat,dog]' --models runs/pets/best.safetensors
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    result = command_parser("eval_classifier", __doc__, EXAMPLES)
    folder = "folder of the images, one folder per class unless kind=... says otherwise"
    add_settings(result, "detector.data.labelled_images:ImagesConfig", files=folder)
    result.add_argument("--models", nargs="+", metavar="FILE", default=[], help="weights of the ensemble's members")
    result.add_argument("--crops", nargs="+", type=int, choices=(1, 10, 144), default=[1], help="(default: 1)")
    result.add_argument("--every", type=at_least(1), default=1, metavar="N", help="take every Nth image only")
    result.add_argument("--save", type=Path, metavar="DIR", help="keep each model's predictions as .npz")
    result.add_argument("--combine", nargs="+", type=Path, metavar="NPZ", help="predictions to average instead")
    add_device(result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict or read predictions, and print; return the exit code."""
    return start(parser(), arguments, _work, check=_check, stopped="what was saved before is complete")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if not options.combine and not (len(options.source) == 1 and options.models):
        parser.error("give one folder of images and --models, or --combine saved predictions")


def _work(options: argparse.Namespace) -> int:
    from detector.classification.ensemble import Predictions, combine, format_predictions
    from detector.commands.run import say_unread
    from detector.terminal import table_width

    unread: dict[str, None] = {}
    if options.combine:
        parts = [Predictions.load(path) for path in options.combine]
        by_crops = {crops: [part for part in parts if part.crops == crops] for crops in {p.crops for p in parts}}
    else:
        by_crops = _predict(options, unread)
    rows = []
    for members in by_crops.values():
        rows += members + ([combine(members)] if len(members) > 1 else [])
    print(format_predictions(rows, table_width()))
    return say_unread("eval_classifier", list(unread), "they are not in these numbers")


def _predict(options: argparse.Namespace, unread: dict[str, None]) -> dict[int, list[Predictions]]:
    """Predict with one model after another; `unread` receives a line for each image that cannot be read.

    Returns:
        The predictions of every model by number of crops.
    """
    import itertools
    import json
    import time

    import numpy as np

    from detector.checkpoint import find_checkpoint, load_any_classifier
    from detector.class_order import in_names_of
    from detector.classification.ensemble import Predictions, classify
    from detector.commands.targets import check_target
    from detector.config import load_config
    from detector.data.ground_truth import DataError
    from detector.data.image import ImageError
    from detector.data.labelled_images import ImagesConfig, open_images
    from detector.device import choose_device, keep_freed_memory
    from detector.progress import progress

    keep_freed_memory()
    device = choose_device(options.device)
    (folder,) = options.source
    images = open_images(load_config(ImagesConfig, None, [f"root={json.dumps(folder)}", *options.overrides]))
    titles = {}
    for name in options.models:
        weights = Path(name)
        titles[name] = weights.parent.name if weights.stem in ("best", "last") else weights.stem
    if options.save:
        for name, crops in itertools.product(options.models, options.crops):
            check_target(options.save / f"{titles[name]}_{crops}.npz", "predictions")
    owner = ""  # the first model with names, whose numbering the others take on
    chosen = list(range(0, len(images), options.every))
    found: dict[int, list[Predictions]] = {crops: [] for crops in options.crops}
    for crops, name in itertools.product(options.crops, options.models):
        classifier = load_any_classifier(find_checkpoint(name))
        if owner:
            classifier = in_names_of(classifier, images.classes, (name, owner))
        classifier.network.to(device)
        outputs = classifier.network.config.classes
        if classifier.classes and not owner:
            images, owner = images.with_classes(classifier.classes, name), name
        elif outputs != len(images.classes):
            raise DataError(f"{name} tells {outputs} classes apart, {folder} has {len(images.classes)}")
        rows, spent = {}, 0.0
        for index in progress(chosen, f"{titles[name]}, {crops} crops"):
            try:
                image = images.read(index)
            except ImageError as error:
                unread[str(error)] = None
                continue
            started = time.perf_counter()
            rows[index] = classify(classifier, image, crops, device=device)
            spent += time.perf_counter() - started
        chosen = list(rows)  # the next model is asked about the same images
        if not rows:
            raise ImageError(f"{folder}: no image can be read, the first: {next(iter(unread))}")
        names = tuple(images.describe(index) for index in chosen)
        probabilities = np.array(list(rows.values()), np.float32)
        found[crops].append(Predictions(1, crops, names, images.labels[chosen], probabilities, spent / len(chosen)))
        if options.save:
            found[crops][-1].save(options.save / f"{titles[name]}_{crops}.npz")
    return found
