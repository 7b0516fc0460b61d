"""Class-agnostic boxes where objects might be (paper §8). Start with `propose(image, ProposalConfig())`.

`selective_search` is the search by itself. Needs NumPy, numba and OpenCV only; names are imported when first used,
because `proposals.boxes`, which evaluation needs, does without numba and OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proposals.merging import propose
    from proposals.result import Proposals
    from proposals.selective.search import Ranked, selective_search
    from proposals.settings import ProposalConfig

_MODULES = {
    "ProposalConfig": "settings",
    "Proposals": "result",
    "Ranked": "selective.search",
    "propose": "merging",
    "selective_search": "selective.search",
}

__all__ = ["ProposalConfig", "Proposals", "Ranked", "propose", "selective_search"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
