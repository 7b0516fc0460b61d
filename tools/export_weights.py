"""Copy trained weights to a file of half the size, float16, with where they come from in its header."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EXAMPLES = """examples:
  python tools/export_weights.py runs/regions_voc/best.safetensors detector/weights/googlenet_voc.safetensors \\
      "data=PASCAL VOC2012, 2,032 photographs" \\
      "command=python tools/train_classifier.py --config configs/regions_voc.yaml"
  python tools/export_weights.py runs/multibox_voc/best.safetensors multibox_voc.safetensors
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, convert, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="a region classifier or MultiBox")
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument(
        "provenance", nargs="*", metavar="topic=text", help="added to what the header says of its origin"
    )
    options = parser.parse_args(arguments)
    if any("=" not in text for text in options.provenance):
        parser.error("provenance is given as topic=text")

    from detector.commands.run import run

    return run("export_weights", lambda: _work(options), stopped="nothing was written")


def _work(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from detector.checkpoint import load_checkpoint, save_checkpoint, weights_format
    from detector.commands.targets import check_target
    from detector.multibox import FORMAT, load_multibox, save_multibox

    check_target(options.target, "weights", [options.source])
    added = dict(text.split("=", 1) for text in options.provenance)
    if weights_format(options.source) == FORMAT:
        model = load_multibox(options.source)
        save_multibox(options.target, replace(model, provenance=model.provenance | added), half=True)
    else:
        classifier = load_checkpoint(options.source)
        save_checkpoint(options.target, replace(classifier, provenance=classifier.provenance | added), half=True)
    print(f"{options.target}: {options.target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    sys.exit(main())
