"""Train GoogLeNet: on whole images (paper §6), or fine-tune it to the regions of a data set (R-CNN §2.3, paper §8)."""

from __future__ import annotations

import argparse
import sys

EXAMPLES = """examples:
  python tools/train_classifier.py --config configs/regions_voc.yaml init=bvlc_googlenet.safetensors
  python tools/train_classifier.py --config configs/regions_voc.yaml --resume auto
  python tools/train_classifier.py --config configs/regions_voc.yaml name=second seed=1
  python tools/train_classifier.py --config configs/ilsvrc_regions.yaml train.root=ILSVRC val.root=ILSVRC
  python tools/train_classifier.py --config configs/googlenet_imagenet.yaml train.root=imagenet val.root=imagenet
  python tools/train_classifier.py --config configs/objects_voc.yaml name=again init_from=runs/objects_voc-1
  torchrun --nproc-per-node 2 tools/train_classifier.py --config configs/googlenet_imagenet.yaml
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, train, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="YAML file of an experiment, or the name of a preset")
    parser.add_argument("--resume", choices=["auto"], help="go on with the run of that name, if there is one")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file's")
    options = parser.parse_intermixed_args(arguments)  # key=value may stand anywhere

    from detector.commands.run import run

    return run("train_classifier", lambda: _work(options), stopped="the same command with --resume auto goes on")


def _work(options: argparse.Namespace) -> None:
    from detector.training.run import train

    train(options.config, options.overrides, device=options.device, resume=options.resume == "auto")


if __name__ == "__main__":
    sys.exit(main())
