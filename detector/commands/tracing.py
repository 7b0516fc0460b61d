"""detect --trace and --annotations: the page of one image."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from detector.commands.run import say, warn

if TYPE_CHECKING:
    from detector.evaluation.truth import Truth
    from detector.pipeline import Detector


def truth_with(annotations: Path, image: Path) -> Truth:
    """Read the ground truth of an image, in any layout that eval_map reads.

    Raises:
        DataError: The ground truth cannot be read, or does not have the image.
    """
    from detector.evaluation.protocols import ScoringConfig
    from detector.evaluation.truth_paths import open_truth
    from detector.trace.objects import index_of

    truth = open_truth(annotations, None, ScoringConfig())
    index_of(truth, image)  # before seconds are spent on weights
    warn("detect", truth.warnings)
    return truth


def write_trace(page: Path, detector: Detector, image: Path, truth: Truth | None = None) -> None:
    """Trace an image, write its page, and say so.

    Args:
        page: The file.
        detector: The detector.
        image: The image file.
        truth: Ground truth that has the image.

    Raises:
        OSError: the page cannot be written.
    """
    from detector.progress import span
    from detector.trace.objects import objects_of
    from detector.trace.page import write_page
    from detector.trace.tracing import trace

    started = time.monotonic()
    objects = None if truth is None else objects_of(truth, image, detector.classes)
    write_page(page, trace(detector, image), objects)
    size = page.stat().st_size / 1e6
    say("detect", f"wrote {page} ({size:.1f} MB) in {span(time.monotonic() - started)}; open it in a browser")
