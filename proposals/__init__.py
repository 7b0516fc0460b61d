"""Where might objects be? Image -> class-agnostic boxes (paper §8). Needs NumPy, numba and OpenCV only.

The names below are loaded when first used: proposals.boxes, which evaluation needs, comes without numba and OpenCV.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proposals.selective.search import Ranked, selective_search

__all__ = ["Ranked", "selective_search"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from proposals.selective import search

    return getattr(search, name)
