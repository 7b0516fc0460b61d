"""The detector as a whole, with networks that judge a region by its mean colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor, nn

from detector import Detector, DetectorConfig, members, model_files
from detector.checkpoint import RegionClassifier
from detector.config import ConfigError
from detector.data.ground_truth import ClassTable
from detector.data.image import Image, read_image
from detector.model_files import CheckpointError
from detector.network.googlenet import GoogLeNetConfig, Heads
from detector.network.input import InputConvention, network_input
from detector.regions.warp import RegionConfig, warp
from detector.settings import CascadeConfig, SuppressionConfig
from detector.suppression import suppress
from proposals.boxes import Boxes
from proposals.settings import ProposalConfig

EXAMPLES = Path(__file__).parent.parent / "examples"
CLASSES = ClassTable(("reddish", "bluish"), (None, None), (1, 2))
BOXES = np.array([[0, 0, 30, 30], [10, 5, 60, 45], [40, 40, 44, 48], [60, 0, 120, 90], [0, 0, 120, 90]], np.float32)


class MeanColour(nn.Module):
    """Logits linear in the mean colour; dropout shows whether it runs in evaluation mode."""

    def __init__(self, seed: int, outputs: int = 3) -> None:
        super().__init__()
        self.config = GoogLeNetConfig(classes=outputs)
        self.trunk = nn.Identity()
        self.linear = nn.Linear(3, outputs)
        self.dropout = nn.Dropout(0.5)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(outputs, 3, generator=generator) / 40)
            self.linear.bias.zero_()
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.dropout(x.mean(dim=(2, 3))))
        return logits

    def heads(self, features: Tensor) -> Heads:
        return Heads(self(features), None)


def member(seed: int, classes: ClassTable = CLASSES, *, size: int = 48, red: float = 123.0) -> RegionClassifier:
    convention = InputConvention(mean=(red, 117.0, 104.0))
    return RegionClassifier(MeanColour(seed, len(classes) + 1), convention, RegionConfig(size, 4), classes)  # type: ignore[arg-type]


def detector(*members: RegionClassifier, batch: int = 16) -> Detector:
    return Detector(members, DetectorConfig(suppression=SuppressionConfig(min_score=0.0), batch=batch))


@pytest.fixture(scope="module")
def image() -> Image:
    return np.random.default_rng(0).integers(0, 256, (9, 12, 3)).repeat(10, axis=0).repeat(10, axis=1).astype(np.uint8)


def softmax_of(one: RegionClassifier, image: Image, boxes: Boxes) -> np.ndarray:
    x = network_input(warp(image, boxes, one.regions, one.convention.mean), one.convention)
    with torch.no_grad():
        return one.network.eval()(x).softmax(dim=1).numpy()


def test_an_ensemble_of_one_is_the_model(image: Image) -> None:
    run = detector(member(0)).score(image, BOXES)
    np.testing.assert_allclose(run.scores.probabilities, softmax_of(member(0), image, BOXES), atol=1e-6)
    assert run.scores.probabilities.dtype == np.float32
    expected = suppress(run.class_boxes, run.scores.probabilities, SuppressionConfig(min_score=0.0))
    for name in ("boxes", "scores", "labels"):
        assert np.array_equal(getattr(run.detections(), name), getattr(expected, name))
    assert set(run.seconds) == {"warp", "network", "suppression"}


def test_the_ensemble_is_the_mean_of_softmax_whatever_the_order(image: Image) -> None:
    members = [member(0), member(1), member(2, size=64), member(3, red=90.0)]
    expected = np.mean([softmax_of(one, image, BOXES) for one in members], axis=0)
    for order in ((0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)):
        found = detector(*(members[index] for index in order)).score(image, BOXES).scores.probabilities
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-6)
    assert np.abs(expected - softmax_of(members[0], image, BOXES)).max() > 0.05


def test_members_of_one_geometry_share_the_warp(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(image: Image, boxes: Boxes, config: RegionConfig, fill: tuple[float, float, float]) -> np.ndarray:
        calls.append((len(boxes), config.size, fill[0]))
        return warp(image, boxes, config, fill)

    monkeypatch.setattr(members, "warp", counted)
    detector(member(0), member(1), member(2, size=64), member(3, red=90.0), batch=3).score(image, BOXES)
    assert calls == [(n, size, red) for size, red in ((48, 123), (64, 123), (48, 90)) for n in (3, 2)]


@pytest.mark.parametrize("batch", [1, 2, 4, 5])
def test_scores_do_not_depend_on_the_batch(image: Image, batch: int) -> None:
    members = (member(0), member(1))
    found = detector(*members, batch=batch).score(image, BOXES).scores.probabilities
    np.testing.assert_allclose(found, detector(*members).score(image, BOXES).scores.probabilities, atol=1e-6)


def test_no_proposals(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    run = detector(member(0)).score(image, np.zeros((0, 4)))
    assert run.boxes.shape == (0, 4)
    assert run.scores.probabilities.shape == (0, 3)
    assert len(run.detections()) == 0
    speck = np.zeros((1, 1, 3), np.uint8)
    narrow = DetectorConfig(proposals=ProposalConfig(width=0))
    assert len(Detector([member(0)], narrow)(speck)) == 0


def test_its_own_proposals_and_its_own_suppression(image: Image) -> None:
    config = DetectorConfig(
        proposals=ProposalConfig(width=0, max_boxes=7), suppression=SuppressionConfig(min_score=0.2, limit=3)
    )
    run = Detector([member(0)], config).score(image)
    assert len(run.boxes) == 7
    assert run.boxes.dtype == np.float32
    assert len(run.detections()) <= 3
    assert list(run.seconds) == ["proposals", "warp", "network", "suppression"]
    again = Detector([member(0)], config)(image)
    assert np.array_equal(again.boxes, run.detections().boxes)
    assert np.array_equal(again.scores, run.detections().scores)


def test_no_member_or_members_of_other_classes() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Detector([], DetectorConfig())
    other = member(2, ClassTable(("cat", "dog", "cow"), (None,) * 3, (1, 2, 3)))
    message = r"model 3 of 3 \(third\) and the first \(first\) have different classes: "
    with pytest.raises(ValueError, match=message):
        Detector([member(0), member(1), other], DetectorConfig(models=["first", "second", "third"]))


def test_a_toy_network_from_disk(toy_checkpoint: Path, shapes: Path) -> None:
    photo = read_image(shapes / "JPEGImages" / "val0.png")
    config = DetectorConfig(
        models=[str(toy_checkpoint)], proposals=ProposalConfig(width=0, min_width=8, max_boxes=12), batch=5
    )
    found = Detector.load(config, device="cpu")
    assert found.classes.names == ("square", "disc")
    run = found.score(photo)
    assert run.scores.probabilities.shape == (12, 3)
    np.testing.assert_allclose(run.scores.probabilities.sum(axis=1), 1, atol=1e-5)
    twice = Detector.load(DetectorConfig(models=[str(toy_checkpoint)] * 2, batch=7), device="cpu")
    np.testing.assert_allclose(twice.score(photo, run.boxes).scores.probabilities, run.scores.probabilities, atol=1e-5)


def test_load_says_what_is_missing(toy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "SHIPPED", tmp_path)
    with pytest.raises(CheckpointError, match=r"^no checkpoint shared_voc0712 .*--config \S*shared_voc0712"):
        Detector.load("fast")
    with pytest.raises(CheckpointError, match=r"^model 1 of 2: no checkpoint shared_voc0712 \(shipped: none\)"):
        Detector.load()
    with pytest.raises(CheckpointError, match=r"model 1 of 6: .*--config \S*regions_paper\S* members=6 --resume"):
        Detector.load("paper")
    alone = DetectorConfig(models=["runs/regions_voc/best.safetensors"])
    with pytest.raises(CheckpointError, match=r"train one: \S+ tools/\S+ --config \S*regions_voc\S*$"):
        Detector.load(alone)
    with pytest.raises(CheckpointError, match=r"^model 2 of 2: no checkpoint nowhere"):
        Detector.load(DetectorConfig(models=[str(toy_checkpoint), "nowhere"]))
    (tmp_path / "mine.yaml").write_text("proposals: {superpixel_size: 2}\n")
    with pytest.raises(ConfigError, match=r"'superpixel_size'.*'superpixel_scale'"):
        Detector.load(tmp_path / "mine.yaml")
    with pytest.raises(ValueError, match="'warp'"):
        Detector.load(DetectorConfig(models=[str(toy_checkpoint)]), device="warp")


@pytest.mark.parametrize(
    ("preset", "name", "label"),
    [("default", "chelsea", "cat"), ("fast", "chelsea", "cat"), ("fast", "astronaut", "person")],
)
def test_the_shipped_detectors_on_the_example_photographs(preset: str, name: str, label: str) -> None:
    found = Detector.load(preset, device="cpu")
    run = found.score(read_image(EXAMPLES / f"{name}.jpg"))
    assert {found.classes.names[number] for number in run.detections().labels} == {label}
    assert run.detections().scores[0] > 0.7
    x1, y1, x2, y2 = run.detections().boxes[0]
    assert x1 < 200 < x2  # the face
    assert y1 < 100 < y2


@pytest.mark.parametrize(
    ("values", "message"),
    [({"models": []}, "models must name at least one region classifier"), ({"batch": 0}, "batch must be at least 1")],
)
def test_settings_that_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetectorConfig(**values)  # type: ignore[arg-type]


def test_grey_files_are_detected_in_like_others(tmp_path: Path) -> None:
    PIL.Image.new("L", (40, 30), 128).save(tmp_path / "grey.png")
    scores = (
        detector(member(0)).score(read_image(tmp_path / "grey.png"), np.array([[0, 0, 40, 30]])).scores.probabilities
    )
    assert np.isfinite(scores).all()


# ---- mirrored regions, the cascade, too little memory


def test_mirrored_regions_are_averaged_in(image: Image) -> None:
    """A region of the mirrored image is the mirrored region."""
    config = DetectorConfig(mirror=True)
    boxes = BOXES[1:3]
    members = [Position(seed) for seed in (0, 1)]
    found = Detector(members, config).score(image, boxes).scores.probabilities
    width = image.shape[1]
    turned = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    plain, mirrored = (
        np.mean([softmax_of(one, picture, places) for one in members], axis=0)
        for picture, places in ((image, boxes), (np.ascontiguousarray(image[:, ::-1]), turned))
    )
    np.testing.assert_allclose(found, (plain + mirrored) / 2, atol=2e-3)  # the two warps round differently
    assert np.abs(plain - mirrored).max() > 0.02


def Position(seed: int) -> RegionClassifier:
    """A member that looks at the left half only."""
    one = member(seed)
    network = one.network

    class Left(nn.Module):
        config = network.config
        trunk = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = network.eval()(x[..., : x.shape[3] // 2])
            return logits

        def heads(self, features: Tensor) -> Heads:
            return Heads(self(features), None)

    return RegionClassifier(Left(), one.convention, one.regions, one.classes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("threshold", "best"), [(0.5, 0), (0.6, 2), (0.99, 1), (0.99, 0), (1e-9, 0)])
def test_the_cascade_asks_the_others_about_some(image: Image, threshold: float, best: int) -> None:
    members = [member(seed) for seed in range(3)]
    each = [softmax_of(one, image, BOXES) for one in members]
    objects = 1 - each[0][:, 0]
    chosen = sorted(range(len(BOXES)), key=lambda row: -objects[row])[:best]
    expected = each[0].copy()
    for row in range(len(BOXES)):
        if objects[row] > threshold or row in chosen:
            expected[row] = np.mean([one[row] for one in each], axis=0)
    config = DetectorConfig(cascade=CascadeConfig(threshold, best))
    np.testing.assert_allclose(Detector(members, config).score(image, BOXES).scores.probabilities, expected, atol=1e-6)


def test_no_threshold_no_cascade(image: Image) -> None:
    members = [member(seed) for seed in range(3)]
    full = Detector(members, DetectorConfig()).score(image, BOXES).scores.probabilities
    np.testing.assert_array_equal(
        Detector(members, DetectorConfig(cascade=CascadeConfig(best=1))).score(image, BOXES).scores.probabilities, full
    )
    alone = DetectorConfig(cascade=CascadeConfig(0.9))
    np.testing.assert_allclose(
        Detector(members[:1], alone).score(image, BOXES).scores.probabilities, softmax_of(members[0], image, BOXES)
    )


def test_regions_held_back_are_not_looked_at(image: Image) -> None:
    seen = []

    class Counting(MeanColour):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return super().forward(x)

    first, second = member(0), member(1)
    counted = RegionClassifier(Counting(1), second.convention, second.regions, second.classes)  # type: ignore[arg-type]
    Detector([first, counted], DetectorConfig(cascade=CascadeConfig(0.999, best=2))).score(image, BOXES)
    assert seen == [2]


@pytest.mark.parametrize(("room", "calls"), [(3, [5, 3, 2]), (1, [5, 3, 2, 1, 1, 1, 1, 1]), (9, [5])])
def test_too_little_memory_halves_the_batch(image: Image, room: int, calls: list[int]) -> None:
    asked = []

    class Crowded(MeanColour):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            if len(x) > room:
                raise torch.OutOfMemoryError
            return super().forward(x)

    one = member(0)
    crowded = RegionClassifier(Crowded(0), one.convention, one.regions, one.classes)  # type: ignore[arg-type]
    detector = Detector([crowded], DetectorConfig(batch=5))
    np.testing.assert_allclose(
        detector.score(image, BOXES).scores.probabilities, softmax_of(one, image, BOXES), atol=1e-6
    )
    assert asked == calls
    asked.clear()
    detector.score(image, BOXES)
    assert max(asked) <= max(room, 1)  # it has learned


def test_a_region_too_large_for_the_memory_is_told(image: Image) -> None:
    class Full(MeanColour):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError

    one = member(0)
    full = RegionClassifier(Full(0), one.convention, one.regions, one.classes)  # type: ignore[arg-type]
    with pytest.raises(torch.OutOfMemoryError):
        Detector([full], DetectorConfig()).score(image, BOXES)
