"""Copy a trained region classifier to one small file: float16, with where it comes from in its header."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EXAMPLES = """examples:
  python tools/export_classifier.py runs/regions_voc/best.safetensors detector/weights/googlenet_voc.safetensors \\
      "data=PASCAL VOC2012, 2,032 photographs" \\
      "command=python tools/train_classifier.py --config configs/regions_voc.yaml"
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, convert, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="a region classifier")
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument(
        "provenance", nargs="*", metavar="topic=text", help="added to what the header says of its origin"
    )
    options = parser.parse_args(arguments)
    if any("=" not in text for text in options.provenance):
        parser.error("provenance is given as topic=text")

    from dataclasses import replace

    from detector.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

    try:
        classifier = load_checkpoint(options.source)
        added = dict(text.split("=", 1) for text in options.provenance)
        save_checkpoint(options.target, replace(classifier, provenance=classifier.provenance | added), half=True)
    except (CheckpointError, OSError) as error:
        print(f"export_classifier: {error}", file=sys.stderr)
        return 1
    print(f"{options.target}: {options.target.stat().st_size / 2**20:.1f} MiB, {len(classifier.classes)} classes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
