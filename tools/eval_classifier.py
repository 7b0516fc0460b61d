"""Top-1 and top-5 error of classifiers on a folder of images, with 1, 10 or 144 crops, alone and together (Table 3)."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

EXAMPLES = """examples:
  python tools/eval_classifier.py ImageNet/val --models bvlc_googlenet.safetensors --crops 1 10
  python tools/eval_classifier.py ImageNet/val --models a.safetensors b.safetensors --crops 144 --save runs/predictions
  python tools/eval_classifier.py --combine runs/predictions/*.npz
  python tools/eval_classifier.py imagenet --set kind=clsloc split=val --models bvlc_googlenet.safetensors
  python tools/eval_classifier.py VOC2012 --set kind=voc split=val 'only=[cat,dog]' --models runs/pets/best.safetensors
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, predict or read predictions, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, help="folder of one folder per class; with --set of another kind")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="settings of ImagesConfig")
    parser.add_argument("--models", nargs="+", metavar="FILE", default=[], help="weights of the ensemble's members")
    parser.add_argument("--crops", nargs="+", type=int, choices=(1, 10, 144), default=[1], help="(default: 1)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth image only")
    parser.add_argument("--save", type=Path, metavar="DIR", help="keep each model's predictions as .npz")
    parser.add_argument("--combine", nargs="+", type=Path, metavar="NPZ", help="predictions to average instead")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not options.combine and not (options.data and options.models):
        parser.error("give a folder of images and --models, or --combine saved predictions")
    if options.every < 1:
        parser.error(f"--every takes a number from 1, not {options.every}")

    from detector.classifier.ensemble import Predictions, combine, format_predictions

    try:
        if options.combine:
            parts = [Predictions.load(path) for path in options.combine]
            by_crops = {crops: [part for part in parts if part.crops == crops] for crops in {p.crops for p in parts}}
        else:
            by_crops = {crops: _predict(options, crops) for crops in options.crops}
        rows = []
        for members in by_crops.values():
            rows += members + ([combine(members)] if len(members) > 1 else [])
        print(format_predictions(rows))
    except (ImportError, OSError, ValueError) as error:  # errors for the user are one line each
        print(f"eval_classifier: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("eval_classifier: stopped; what was saved before is complete", file=sys.stderr)
        return 1
    return 0


def _predict(options: argparse.Namespace, crops: int) -> list:
    """The predictions of every model, one after the other."""
    import numpy as np
    from tqdm import tqdm

    from detector.checkpoint import find_checkpoint, load_any_classifier
    from detector.classifier.ensemble import Predictions, classify
    from detector.config import load_config
    from detector.data.labelled_images import ImagesConfig, open_images
    from detector.device import choose_device, keep_freed_memory

    keep_freed_memory()
    device = choose_device(options.device)
    images = open_images(load_config(ImagesConfig, None, [f"root={options.data}", *options.set]))
    chosen = range(0, len(images), options.every)
    found = []
    for name in options.models:
        classifier = load_any_classifier(find_checkpoint(name))
        classifier.network.to(device)
        outputs = classifier.network.config.classes
        if classifier.classes:
            images = images.with_classes(classifier.classes, name)
        elif outputs != len(images.classes):
            raise ValueError(f"{name} tells {outputs} classes apart, {options.data} has {len(images.classes)}")
        title = Path(name).stem if Path(name).stem not in ("best", "last") else Path(name).parent.name
        rows, spent = [], 0.0
        for index in tqdm(chosen, desc=f"{title}, {crops} crops", unit="image", dynamic_ncols=True):
            image = images.read(index)
            started = time.perf_counter()
            rows.append(classify(classifier, image, crops, device=device))
            spent += time.perf_counter() - started
        names = tuple(images.describe(index) for index in chosen)
        found.append(
            Predictions(1, crops, names, images.labels[chosen], np.array(rows, np.float32), spent / len(chosen))
        )
        if options.save:
            found[-1].save(options.save / f"{title}_{crops}.npz")
    return found


if __name__ == "__main__":
    sys.exit(main())
