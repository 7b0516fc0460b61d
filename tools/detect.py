"""Find objects in photographs: print what is where, write annotated images and JSON."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EXAMPLES = """examples:
  python tools/detect.py image.jpg
  python tools/detect.py photos/ more/*.png --output results
  python tools/detect.py image.jpg suppression.min_score=0.3 proposals.max_boxes=500
  python tools/detect.py image.jpg models=[runs/mine/best.safetensors]
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, detect, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="+", help="image files and folders, and settings as key=value")
    parser.add_argument("--config", default="default", help="YAML file or preset (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("detections"), metavar="DIR", help="(default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    parser.add_argument("--recursive", action="store_true", help="look into folders within folders")
    options = parser.parse_intermixed_args(arguments)  # key=value may stand anywhere
    sources = [text for text in options.source if "=" not in text or Path(text).exists()]
    overrides = [text for text in options.source if text not in sources]
    if not sources:
        parser.error("name at least one image or folder")

    try:
        from detector.opencv import check_opencv

        check_opencv()
        from detector.config import load_config
        from detector.data.image import find_images
        from detector.settings import DetectorConfig

        config = load_config(DetectorConfig, options.config, overrides)
        paths = find_images(sources, recursive=options.recursive)

        from detector.device import keep_freed_memory  # torch is imported here, after all that can be refused at once
        from detector.output import detect_files
        from detector.pipeline import Detector

        keep_freed_memory()
        failed = detect_files(Detector.load(config, device=options.device), paths, options.output)
    except (ImportError, OSError, ValueError) as error:  # errors for the user are one line each
        print(f"detect: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("detect: stopped; the images printed above are done", file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
