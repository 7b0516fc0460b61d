"""Mean average precision: run the detector over a data set and score it, or score detections that are already there."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EXAMPLES = """examples:
  python tools/eval_map.py --config configs/voc_test.yaml data.root=VOC2012
  python tools/eval_map.py --config configs/voc_test.yaml --detections runs/voc_test/detections.json
  python tools/eval_map.py --detections mine.json data.kind=coco data.root=coco data.split=val2017 protocol=coco
"""


def main(arguments: list[str] | None = None) -> int:
    """Parse, detect or read, score, print; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", help="YAML file of an evaluation, or the name of a preset")
    parser.add_argument(
        "--detections", type=Path, metavar="FILE", help="score this file (COCO results JSON, or a run's JSONL)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the numbers here too")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file's")
    options = parser.parse_intermixed_args(arguments)  # key=value may stand anywhere
    if not options.config and not options.detections:
        parser.error("give --config to run a detector, or --detections to score a file")

    try:
        from detector.config import load_config
        from detector.data.dataset import open_dataset
        from detector.evaluation import experiment, format_report, write_report

        config = load_config(experiment.EvaluationConfig, options.config, options.overrides)
        dataset = open_dataset(config.data, need_images=options.detections is None)
        for warning in dataset.warnings:
            print(f"eval_map: warning: {warning}", file=sys.stderr)
        detections = options.detections or experiment.detect_dataset(config, dataset, options.device)
        evaluation = experiment.score(config, dataset, detections)
        if missing := experiment.missing_images(dataset, detections):
            print(
                f"eval_map: warning: {detections} has no line for {missing} of {len(dataset)} images; "
                "they count as having no detections",
                file=sys.stderr,
            )
        if options.detections is None:
            experiment.save_table(config, dataset, detections)
            write_report(config.folder / "report.json", evaluation)
        if options.json:
            write_report(options.json, evaluation)
    except (ImportError, OSError, ValueError) as error:  # errors for the user are one line each
        print(f"eval_map: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("eval_map: stopped; the same command goes on where it was", file=sys.stderr)
        return 1
    print(format_report(evaluation))
    return 0


if __name__ == "__main__":
    sys.exit(main())
