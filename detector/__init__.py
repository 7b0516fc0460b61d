"""What are they? Image and boxes -> detections -> mAP (paper §5-§8).

`Detector` and `read_image` are all a user needs; the names are resolved when asked for, because torch takes seconds to
import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.data.image import read_image
    from detector.detections import Detections
    from detector.pipeline import Detector
    from detector.settings import DetectorConfig

_WHERE = {
    "Detections": "detector.detections",
    "Detector": "detector.pipeline",
    "DetectorConfig": "detector.settings",
    "read_image": "detector.data.image",
}

__all__ = ["Detections", "Detector", "DetectorConfig", "read_image"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'detector' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
