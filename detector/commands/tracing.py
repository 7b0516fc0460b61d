"""detect --trace: the page of one image."""

from __future__ import annotations

import time
from pathlib import Path

from detector.commands.run import say
from detector.pipeline import Detector
from detector.progress import span
from detector.trace.page import write_page
from detector.trace.tracing import trace


def write_trace(page: Path, detector: Detector, image: Path) -> None:
    """Trace an image, write its page, and say so.

    Raises:
        OSError: the page cannot be written.
    """
    started = time.monotonic()
    write_page(page, trace(detector, image))
    size = page.stat().st_size / 1e6
    say("detect", f"wrote {page} ({size:.1f} MB) in {span(time.monotonic() - started)}; open it in a browser")
