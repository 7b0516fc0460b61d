"""What detect writes as labels is a data set for training: read back by our own readers through `open_dataset`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from detect_runs import make_run, photo

from detector.data import DataConfig, Dataset, DatasetKind, open_dataset

BOXES = np.array([[1, 2, 30.25, 40], [5, 6, 70, 50.13]])
"""What the stub finds in each image: a naïve dog and a cat."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.png", "deep/b.png", "deep/er 1/c.png"):
        photo(tmp_path / "photos" / name)
    return tmp_path / "photos"


def check(dataset: Dataset, names: list[str], tolerance: float) -> None:
    assert sorted(record.path.name for record in dataset.records) == names
    for record in dataset.records:
        found = {dataset.classes.names[label]: box for label, box in zip(record.labels, record.boxes, strict=True)}
        assert set(found) == {"naïve dog", "cat"}
        np.testing.assert_allclose([found["naïve dog"], found["cat"]], BOXES, atol=tolerance)
        assert (record.width, record.height) == (80, 60)


@pytest.mark.parametrize("kind", [DatasetKind.yolo, DatasetKind.auto])
def test_yolo(photos: Path, tmp_path: Path, kind: DatasetKind) -> None:
    """With the images copied beside the labels, as the page says."""
    out = tmp_path / "out"
    make_run([photos], out, "yolo", recursive=True, pictures=False)
    shutil.copytree(photos, out / "images")
    dataset = open_dataset(DataConfig(kind, str(out), split="train"))
    check(dataset, ["a.png", "b.png", "c.png"], 1e-3)
    assert dataset.classes.names == ("cat", "naïve dog")


@pytest.mark.parametrize("kind", [DatasetKind.labelme, DatasetKind.auto])
def test_labelme(photos: Path, tmp_path: Path, kind: DatasetKind) -> None:
    """The files name their images by a path from their own folder."""
    make_run([photos], tmp_path / "out", "labelme", recursive=True, pictures=False)
    check(open_dataset(DataConfig(kind, str(tmp_path / "out/labelme"))), ["a.png", "b.png", "c.png"], 0)


@pytest.mark.parametrize("kind", [DatasetKind.voc, DatasetKind.auto])
def test_voc(photos: Path, tmp_path: Path, kind: DatasetKind) -> None:
    out = tmp_path / "out"
    make_run([photos], out, "voc", recursive=True, pictures=False)
    shutil.copytree(photos, out / "JPEGImages")
    check(open_dataset(DataConfig(kind, str(out))), ["a.png", "b.png", "c.png"], 0.5)
