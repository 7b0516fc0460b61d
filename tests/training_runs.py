"""Toy trainings that several test files run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from detector.training.run import train


def runner(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return what runs these settings with some changed, in a folder of its own or a given one; it gives the run's."""

    def run(folder: Path | None = None, *, resume: bool = False, **changes: Any) -> Path:
        folder = folder or tmp_path_factory.mktemp("training")
        (folder / "toy.yaml").write_text(yaml.safe_dump(settings | changes))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            (found,) = train("toy.yaml", [], device="cpu", resume=resume)
            return found.resolve()

    return run
