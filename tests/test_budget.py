"""The benchmark that says where a detector's time goes: its multiply-adds, its stages, its command."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from budget import Budget, Stage, format_budget, measure, precisions_of
from network_speed import matrix_product
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from work import NetworkCosts, Work, WorkCounter

from detector import Detector, DetectorConfig
from detector.checkpoint import RegionClassifier
from detector.data.ground_truth import ClassTable
from detector.multibox import MultiBoxModel, save_multibox
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention
from detector.network.operations import multiply_adds, on_meta
from detector.regions.maps import SharedConfig
from detector.regions.rejection import RejectionLayer, RejectionLayerConfig
from detector.regions.warp import RegionConfig
from detector.rejection import RejectionModel, fingerprint, save_rejection
from detector.settings import CascadeConfig, RejectionConfig
from proposals.multibox.head import MultiBox, MultiBoxConfig, MultiBoxHead
from proposals.settings import MultiBoxSettings, ProposalConfig

Main = Callable[[list[str]], int]
CLASSES = ClassTable(("a", "b"), (None, None), (1, 2))
BOXES = np.array([[0, 0, 30, 30], [10, 5, 60, 45], [60, 0, 120, 90], [0, 0, 120, 90], [100, 70, 120, 90]], np.float32)
SEARCH = ProposalConfig(max_boxes=20)


@pytest.fixture
def image() -> NDArray[np.uint8]:
    blocks = np.random.default_rng(0).integers(0, 256, (9, 12, 3))
    return blocks.repeat(10, axis=0).repeat(10, axis=1).astype(np.uint8)


def classifier(shared: bool, *, width: float = 0.25, size: int = 64, norm: str = "lrn") -> RegionClassifier:
    torch.manual_seed(0)
    config = GoogLeNetConfig(classes=3, width=width, norm=norm, initialisation="xavier", regression_cells=1)
    return RegionClassifier(
        GoogLeNet(config).eval(),
        InputConvention(std=(60.0, 60.0, 60.0)),
        RegionConfig(size, 4),
        CLASSES,
        shared=SharedConfig(pyramid=[96, 192], region=64, grid=6) if shared else None,
    )


def counted_by_torch(run: Callable[[], object]) -> int:
    """The multiply-adds that torch's own counter sees while a function really runs; it counts each twice."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(3, 8, 5, 2, padding=2), (2, 3, 9, 7), 2 * 5 * 4 * 8 * 3 * 25),
        (nn.Conv2d(6, 6, 3, groups=3), (1, 6, 4, 4), 2 * 2 * 6 * 2 * 9),
        (nn.Linear(7, 5), (3, 7), 3 * 7 * 5),
        (nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 1)), (3, 7), 3 * (35 + 5)),
        (nn.MaxPool2d(2), (1, 3, 4, 4), 0),
    ],
)
def test_layers_by_hand(layer: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    assert multiply_adds(on_meta(layer), lambda run: run(torch.empty(shape, device="meta"))) == expected
    assert counted_by_torch(lambda: layer(torch.zeros(shape))) == expected


@pytest.mark.parametrize("norm", ["lrn", "batch"])
def test_parts_of_the_network(norm: str) -> None:
    network = classifier(True, norm=norm).network
    costs = NetworkCosts(network)
    trunk, last = network.trunk_slice(None, "pool4"), network.trunk_slice("pool4")
    for height, width in ((96, 128), (67, 45)):
        x = torch.zeros(1, 3, height, width)
        used, maps = costs.trunk(height, width)
        assert used == counted_by_torch(lambda x=x: trunk(x))
        assert maps.shape == trunk(x).shape
    cells = torch.zeros(1, maps.shape[1], 6, 6)
    assert costs.region(6) == counted_by_torch(lambda: network.heads(last(cells)))
    assert costs.warped(64) == counted_by_torch(lambda: network.heads(network.trunk(torch.zeros(1, 3, 64, 64))))


def toy_multibox(path: Path) -> MultiBox:
    """Write a MultiBox of one prior that sees 96 px."""
    member = classifier(False)
    head = MultiBoxHead(member.network.fc.in_features, torch.tensor([[0.1, 0.1, 0.5, 0.5]]), MultiBoxConfig(1, 8))
    network = MultiBox(copy.deepcopy(member.network.trunk), head).eval()
    save_multibox(path, MultiBoxModel(network, member.network.config, member.convention, 96))
    return network


def totals(work: dict[str, Work]) -> int:
    return sum(one.multiply_adds for one in work.values())


@pytest.mark.parametrize(
    ("members", "cascade", "mirror"),
    [
        ([classifier(True)], CascadeConfig(), False),
        ([classifier(False)], CascadeConfig(), True),
        ([classifier(True), classifier(False), classifier(False, width=0.5)], CascadeConfig(0.999, 2), False),
        ([classifier(True), classifier(True, width=0.5), classifier(False, size=96)], CascadeConfig(0.999, 2), True),
        ([classifier(True), classifier(False)], CascadeConfig(0.999, 2, mirror=True, second_pass=True), False),
        ([classifier(False, norm="batch"), classifier(False)], CascadeConfig(), False),
    ],
)
def test_a_whole_detector(
    members: list[RegionClassifier], cascade: CascadeConfig, mirror: bool, image: NDArray[np.uint8]
) -> None:
    config = DetectorConfig(
        models=["toy"] * len(members),
        cascade=cascade,
        regression=True,
        mirror=mirror,
        precision="float32",
        proposals=SEARCH,
    )
    detector = Detector(members, config)
    work = WorkCounter(detector).count(image, BOXES)
    assert totals(work) == counted_by_torch(lambda: detector.score(image, BOXES))
    scored = detector.score(image, BOXES)
    found = {name: work.get(name, Work()).count for name in ("trunk", "regions", "warp", "network")}
    counts = [
        scored.counts.get(name, 0) for name in ("trunk_pixels", "regions_cut", "regions_warped", "network_passes")
    ]
    assert list(found.values()) == counts
    if cascade.applies:
        assert 0 < found["warp"] < (9 if cascade.second_pass else 5)


@pytest.mark.parametrize(("threshold", "passing"), [(0.0, 5), (0.9999, 0)])
def test_rejection_and_multibox(threshold: float, passing: int, image: NDArray[np.uint8], tmp_path: Path) -> None:
    member = classifier(True)
    depth = member.network.trunk_slice(None, "pool4")(torch.zeros(1, 3, 64, 64)).shape[1]
    layer = RejectionLayer(depth, RejectionLayerConfig(channels=8, grid=3, hidden=4)).eval()
    save_rejection(tmp_path / "layer.safetensors", RejectionModel(layer, 0.5, fingerprint(member.network)))
    network = toy_multibox(tmp_path / "box.safetensors")
    settings = MultiBoxSettings(str(tmp_path / "box.safetensors"), crops=1, precision="float32")
    rejection = RejectionConfig(str(tmp_path / "layer.safetensors"), threshold)
    detector = Detector(
        [member],
        DetectorConfig(["toy"], rejection=rejection, precision="float32", proposals=replace(SEARCH, multibox=settings)),
    )
    work = WorkCounter(detector).count(image, BOXES)
    assert totals(work) - work["MultiBox"].multiply_adds == counted_by_torch(lambda: detector.score(image, BOXES))
    assert work["rejection"].count == 5
    views = work["MultiBox"].count
    assert views == 1 + 6  # six squares of 2/3 in an image of 4:3
    assert work["MultiBox"].multiply_adds == views * counted_by_torch(lambda: network(torch.zeros(1, 3, 96, 96)))
    assert work["regions"].count == passing


@pytest.fixture
def photo(tmp_path: Path, image: NDArray[np.uint8]) -> Path:
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    return tmp_path / "photo.png"


def test_stages_add_up_to_the_total(photo: Path, preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budget.MATRIX_SIDE", 64)
    budgets, rates = measure([preset], [photo], 1)
    budget = budgets[preset]
    assert [stage.name for stage in budget.stages] == ["selective search", "warp", "network", "suppression", "other"]
    assert all(stage.seconds > 0 for stage in budget.stages)
    total = budget.total[1]
    assert sum(stage.seconds for stage in budget.stages) == pytest.approx(total)
    assert budget.stages[-1].seconds < 0.5 * total  # no stage's time is lost in it
    assert budget.regions == 20
    by_name = {stage.name: stage for stage in budget.stages}
    assert by_name["warp"].count == by_name["network"].count == 20
    assert set(rates) == {"float32"}
    assert rates["float32"] > 0


def test_quartiles_and_medians_are_over_the_rounds(photo: Path, preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budget.MATRIX_SIDE", 64)
    (budget,) = measure([preset], [photo], 3)[0].values()
    low, median, high = budget.total
    assert 0 < low < median < high
    assert all(stage.seconds < high for stage in budget.stages)


def test_multibox_is_timed_apart(photo: Path, preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budget.MATRIX_SIDE", 64)
    toy_multibox(photo.parent / "box.safetensors")
    multibox = f"{{weights: {photo.parent}/box.safetensors, crops: 1, precision: float32}}"
    text = Path(preset).read_text().replace("max_boxes: 20", f"max_boxes: 20, multibox: {multibox}")
    Path(preset).write_text(text)
    (budget,) = measure([preset], [photo], 1)[0].values()
    search, boxes, *_ = budget.stages
    assert (search.name, boxes.name, boxes.count, boxes.unit) == ("selective search", "MultiBox", 7, "views")
    assert min(search.seconds, boxes.seconds) > 0
    assert sum(stage.seconds for stage in budget.stages) == pytest.approx(budget.total[1])
    assert budget.regions == len(Detector.load(preset).score(photo).boxes)


@pytest.mark.parametrize(
    ("shared", "settings", "expected"),
    [
        (True, {"precision": "bfloat16"}, ("bfloat16",)),
        (True, {"precision": "auto"}, ("float32",)),  # by conftest.py
        (False, {"precision": "float32"}, ("float32",)),
    ],
)
def test_precisions(shared: bool, settings: dict[str, str], expected: tuple[str, ...]) -> None:
    detector = Detector([classifier(shared)], DetectorConfig(["toy"], proposals=SEARCH, **settings))
    assert precisions_of(detector) == expected


def test_the_table() -> None:
    stages = [
        Stage("selective search", 1000, "boxes", 0.0, 0.25),
        Stage("trunk", 500_000, "px", 30.0, 0.5),
        Stage("regions", 1000, "regions", 60.0, 0.5),
        Stage("network", 0, "regions", 0.0, 0.0),
    ]
    budget = Budget(1000, stages, (1.2, 1.25, 1.5), ("bfloat16",))
    head, *rows, total, quartiles, precision, products = [
        line.split() for line in format_budget(budget, {"float32": 60.0, "bfloat16": 240.0}).splitlines()
    ]
    assert head[-4:] == ["of", "float32", "of", "bfloat16"]
    assert rows[0] == ["selective", "search", "1,000", "boxes", "0.250", "0.25"]
    assert rows[1] == ["trunk", "0.50", "Mpx", "30.00", "0.500", "1000.00", "60.0", "100%", "25%"]
    assert rows[2] == ["regions", "1,000", "regions", "60.00", "0.500", "0.50", "120.0", "200%", "50%"]
    assert rows[3] == ["network", "0.00", "regions", "0.000"]
    assert total == ["total", "1,000", "regions", "90.00", "1.250", "1.25", "72.0", "120%", "30%"]
    assert quartiles == ["seconds,", "quartiles:", "1.200-1.500"]
    assert precision[-1] == "bfloat16"
    assert products[-4:] == ["float32", "60.0,", "bfloat16", "240.0"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_the_matrix_product(precision: str) -> None:
    product = matrix_product(precision, torch.device("cpu"), side=32)()
    assert isinstance(product, torch.Tensor)
    assert product.shape == (32, 32)


def test_the_command(
    tool: Callable[[str], Main],
    photo: Path,
    preset: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("budget.MATRIX_SIDE", 64)
    (photo.parent / "broken.png").write_bytes(b"no image")
    assert tool("budget")([str(photo), "--detectors", preset, "--repetitions", "1"]) == 0
    assert "network" in capsys.readouterr().out
    broken = [str(photo.parent / "broken.png")]
    assert tool("budget")([str(photo), *broken, "--detectors", preset, "--repetitions", "1"]) == 1
    assert "broken.png" in capsys.readouterr().err
    assert tool("budget")(broken) == 1
    assert "no image can be read" in capsys.readouterr().err
    assert tool("budget")([str(photo), "--detectors", "nothing"]) == 1
    assert "budget: nothing: no such config" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool("budget")([str(photo), "--repetitions", "0"])
