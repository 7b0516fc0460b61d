"""R-CNN-style object detection with GoogLeNet. Start with `Detector.load()`.

>>> from detector import Detector
>>> model = Detector.load("fast")
>>> model("examples/chelsea.jpg")[0].name
'cat'

`evaluate` and `Evaluator` score any program's detections against ground truth, without torch. Names are imported when
first used, because torch takes seconds to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.data.image import read_image
    from detector.detections import Detection, Detections
    from detector.evaluation.entry import evaluate
    from detector.evaluation.evaluator import Evaluator
    from detector.evaluation.outcome import Evaluation
    from detector.pipeline import Detector, ScoredImage
    from detector.settings import DetectorConfig

_MODULES = {
    "Detection": "detections",
    "Detections": "detections",
    "Detector": "pipeline",
    "DetectorConfig": "settings",
    "Evaluation": "evaluation.outcome",
    "Evaluator": "evaluation.evaluator",
    "ScoredImage": "pipeline",
    "evaluate": "evaluation.entry",
    "read_image": "data.image",
}

__all__ = [
    "Detection",
    "Detections",
    "Detector",
    "DetectorConfig",
    "Evaluation",
    "Evaluator",
    "ScoredImage",
    "evaluate",
    "read_image",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
