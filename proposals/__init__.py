"""Where might objects be? Image -> class-agnostic boxes (paper §8). Needs NumPy, numba and OpenCV only."""

from proposals.selective_search import Ranked, selective_search

__all__ = ["Ranked", "selective_search"]
