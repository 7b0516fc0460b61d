"""Fixtures of several test modules."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of development photographs, from the environment; the test skips where it is absent."""
    folder = os.environ.get("RCNN_DATA", "")
    if not folder:
        pytest.skip("RCNN_DATA is not set: it names the folder of the development photographs")
    if not Path(folder).is_dir():
        pytest.skip(f"RCNN_DATA names {folder}, which is no folder")
    return Path(folder)
