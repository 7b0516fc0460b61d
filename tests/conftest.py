"""Fixtures of several test modules: the development photographs, a toy data set, a toy checkpoint, the tools."""

from __future__ import annotations

import importlib
import os
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

# Read when torch loads: threads that wait for their next task sleep. Spinning, they slow a busy machine several times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

TOOLS = Path(__file__).parent.parent / "tools"
SHAPES = ("square", "disc")


@pytest.fixture(scope="session", autouse=True)
def no_machine_of_its_own() -> Iterator[None]:
    """precision=auto is float32 in this process, so that tests see the same numbers on every processor."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of development photographs, from the environment; the test skips where it is absent."""
    folder = os.environ.get("RCNN_DATA", "")
    if not folder:
        pytest.skip("RCNN_DATA is not set: it names the folder of the development photographs")
    if not Path(folder).is_dir():
        pytest.skip(f"RCNN_DATA names {folder}, which is no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VOC tree of 96 × 80 px images, each with a red square and a blue disc on grey noise: 4 train, 3 val."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:80, :96]
    for split, count in (("train", 4), ("val", 3)):
        names = [f"{split}{index}" for index in range(count)]
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            image = generator.integers(100, 140, (80, 96, 3)).astype(np.uint8)
            side = int(generator.integers(24, 36))
            left, top = int(generator.integers(2, 10)), int(generator.integers(2, 40))
            image[top : top + side, left : left + side] = (210, 40, 30)
            x, y, radius = 72, int(generator.integers(22, 58)), int(generator.integers(13, 19))
            image[(columns - x) ** 2 + (rows - y) ** 2 <= radius**2] = (30, 60, 200)
            PIL.Image.fromarray(image).save(root / f"JPEGImages/{name}.png")
            objects = [
                ("square", (left + 1, top + 1, left + side, top + side)),
                ("disc", (x - radius + 1, y - radius + 1, x + radius + 1, y + radius + 1)),
            ]
            (root / f"Annotations/{name}.xml").write_text(_annotation(objects))
    return root


def _annotation(objects: list[tuple[str, tuple[int, ...]]]) -> str:
    items = [
        f"<object><name>{name}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in objects
    ]
    size = "<size><width>96</width><height>80</height><depth>3</depth></size>"
    return "\n".join(["<annotation>", size, *items, "</annotation>", ""])


@pytest.fixture(scope="session")
def toy_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow region classifier of 64 px squares for the two shapes, with random weights."""
    import torch

    from detector.checkpoint import RegionClassifier, save_checkpoint
    from detector.data.ground_truth import ClassTable
    from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
    from detector.network.input import InputConvention
    from detector.regions.warp import RegionConfig

    torch.manual_seed(0)
    network = GoogLeNet(GoogLeNetConfig(classes=3, width=0.25, initialisation="xavier")).eval()
    convention = InputConvention(mean=(120.0, 120.0, 120.0), std=(60.0, 60.0, 60.0))
    classes = ClassTable(SHAPES, (None, None), (1, 2))
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    save_checkpoint(path, RegionClassifier(network, convention, RegionConfig(size=64, context=4), classes))
    return path


@pytest.fixture
def preset(toy_checkpoint: Path, tmp_path: Path) -> str:
    """A detector of the toy checkpoint and 20 boxes."""
    (tmp_path / "toy.yaml").write_text(
        f"models: [{toy_checkpoint}]\nprecision: float32\nproposals: {{max_boxes: 20}}\n"
    )
    return str(tmp_path / "toy.yaml")


@pytest.fixture
def tool() -> Callable[[str], Callable[[list[str]], int]]:
    """The main function of a command in tools/ or tools/benchmarks/, by the command's name."""

    def main(name: str) -> Callable[[list[str]], int]:
        if (TOOLS / f"{name}.py").is_file():
            return runpy.run_path(str(TOOLS / f"{name}.py"))["main"]  # type: ignore[no-any-return]
        return importlib.import_module(name).main  # type: ignore[no-any-return]

    return main
