"""Train MultiBox, the network that proposes boxes of any class, on the boxes of a data set (paper §8)."""

from __future__ import annotations

import argparse
import sys

EXAMPLES = """examples:
  python tools/train_multibox.py --config configs/multibox_voc.yaml
  python tools/train_multibox.py --config configs/multibox_voc.yaml --resume auto
  python tools/train_multibox.py --config configs/ilsvrc_multibox.yaml train.root=ILSVRC val.root=ILSVRC
  python tools/train_multibox.py --config configs/multibox_voc.yaml name=wide head.priors=800 head.hidden=1024
  torchrun --nproc-per-node 2 tools/train_multibox.py --config configs/multibox_voc.yaml train_from=inception_4a
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

    return run("train_multibox", lambda: _work(options), stopped="the same command with --resume auto goes on")


def _work(options: argparse.Namespace) -> None:
    from detector.training.run import train_multibox

    train_multibox(options.config, options.overrides, device=options.device, resume=options.resume == "auto")


if __name__ == "__main__":
    sys.exit(main())
