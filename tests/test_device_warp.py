"""What a GPU runs, on the CPU: regions warped by torch against the kernel, cells gathered from maps, whole members."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_shared import windows_of
from test_views import CPU, EXACT, both, picture, random_boxes, views_of
from torchvision.ops import roi_align as torchvision_roi_align

from detector.data.image import Image
from detector.device import upload
from detector.members import WarpedMember
from detector.regions import device_warp
from detector.regions.device_warp import warp_on_device
from detector.regions.maps import _gather
from detector.regions.warp import RegionConfig, warp
from proposals.boxes import Boxes

FILL = (123.4, 117.0, 104.0)


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def assert_same(image: Image, boxes: Boxes, config: RegionConfig) -> None:
    expected = warp(image, boxes, config, FILL).astype(int)
    found = warp_on_device(upload(image, CPU).float(), boxes, config, FILL)
    assert found.dtype == torch.uint8
    away = np.abs(found.numpy().astype(int) - expected)
    assert away.max(initial=0) <= 1
    assert (away > 0).mean() < 0.001 if away.size else True  # the same but for the order of sums


@pytest.mark.parametrize(
    ("height", "width", "config"),
    [
        (60, 80, RegionConfig(64, 4)),  # enlarged
        (400, 300, RegionConfig(48, 8)),  # shrunk up to eightfold
        (700, 900, RegionConfig(32, 0)),  # shrunk up to 28-fold
        (1, 90, RegionConfig(32, 4)),
        (90, 1, RegionConfig(32, 4)),
        (3, 3, RegionConfig()),
    ],
)
def test_regions_are_those_of_the_kernel(height: int, width: int, config: RegionConfig) -> None:
    generator = np.random.default_rng(height)
    corner = generator.random((70, 2)) * (width, height)
    size = np.maximum(generator.random((70, 2)) ** 2 * (width, height), 0.5)
    boxes = np.concatenate([corner - size / 2, corner + size / 2], axis=1)
    boxes[0] = [0, 0, width, height]
    boxes[1] = [-0.6 * width, -0.2 * height, 1.5 * width, 1.1 * height]
    assert_same(noise(height, width), boxes, config)


def test_some_of_several_sizes_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_warp, "AT_A_TIME", 2)
    boxes = np.array([[0, 0, 90, 90], [5, 5, 9, 9], [10, 0, 200, 60], [3, 4, 30, 20], [0, 0, 200, 150]], np.float32)
    assert_same(noise(150, 200), boxes, RegionConfig(32, 4))
    assert_same(noise(150, 200), boxes[:0], RegionConfig(32, 4))


def test_a_read_only_and_a_mirrored_image_are_uploaded() -> None:
    image = noise(6, 8)
    image.setflags(write=False)
    for one in (image, image[:, ::-1]):
        assert np.array_equal(upload(one, CPU).numpy(), one)


@pytest.mark.parametrize("grid", [1, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gathered_cells_equal_torchvision(grid: int, dtype: torch.dtype) -> None:
    features = torch.randn(1, 16, 8, 11, generator=torch.Generator().manual_seed(1)).to(dtype)
    windows = windows_of(50)
    expected = torchvision_roi_align(features.float(), [torch.from_numpy(windows) + 0.5], grid, 1.0, 1, True)
    found = _gather(features[0].permute(1, 2, 0), torch.from_numpy(windows), grid).permute(0, 3, 1, 2)
    assert found.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)


def test_scores_of_regions_warped_on_the_device() -> None:
    """One grey level apart at most, so that scores differ by little."""
    member = WarpedMember(both()[1:], EXACT, CPU)
    expected = member.score(views_of(5, 1, 7))
    member._on_device = True
    views = views_of(5, 1, 7)
    found = member.score(views)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=2e-3)
    assert expected.probabilities.std(axis=0).max() > 0.05
    assert [view.counts["network_passes"] for view in views] == [10, 2, 14]


def test_boxes_of_a_photograph_sized_image() -> None:
    image = picture(3, 30, 40)
    assert_same(image, random_boxes(40, image), RegionConfig(224, 16))
