"""Crops by their exact geometry, means over crops and models, the commands that test classifiers (paper §7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from foreign_weights import to_caffe, to_torchvision
from safetensors.torch import save_file

from detector.checkpoint import ImageClassifier, load_any_classifier, load_checkpoint, save_checkpoint
from detector.classification import ensemble
from detector.classification.crops import SCALES, Crop, cut_crops, plan_crops, resized_size
from detector.classification.ensemble import (
    Predictions,
    classify,
    combine,
    format_predictions,
    interval,
)
from detector.model_files import CheckpointError
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention
from detector.network.pretrained import CAFFE_INPUT, TORCHVISION_VARIANT

Main = Callable[[list[str]], int]


# ---- geometry


def test_squares_of_a_landscape() -> None:
    """500 x 375 at a shorter side of 256: 341 x 256, squares at x = 0, 42, 85."""
    assert resized_size(256, 500, 375) == (341, 256)
    full = [crop for crop in plan_crops(144, 500, 375) if crop.scale == 256 and crop.side == 256 and not crop.mirrored]
    assert [(crop.left, crop.top) for crop in full] == [(0, 0), (42, 0), (85, 0)]
    portrait = [
        crop for crop in plan_crops(144, 375, 500) if crop.scale == 256 and crop.side == 256 and not crop.mirrored
    ]
    assert [(crop.left, crop.top) for crop in portrait] == [(0, 0), (0, 42), (0, 85)]


@pytest.mark.parametrize(("width", "height", "different"), [(500, 375, 144), (375, 500, 144), (500, 500, 48)])
def test_numbers_of_crops(width: int, height: int, different: int) -> None:
    crops = plan_crops(144, width, height)
    assert len(crops) == 144
    counts = Counter(crops)
    assert list(counts.values()) == [144 // different] * different
    assert len(plan_crops(10, width, height)) == len(set(plan_crops(10, width, height))) == 10
    assert len(plan_crops(1, width, height)) == 1


def test_offsets_within_a_square() -> None:
    for scale in SCALES:
        mine = [crop for crop in plan_crops(144, 352, 352) if crop.scale == scale][:12]
        end = scale - 224
        expected = [(0, 0), (end, 0), (0, end), (end, end), (end // 2, end // 2), (0, 0)]
        assert [(crop.left, crop.top) for crop in mine[::2]] == expected
        assert [crop.side for crop in mine[::2]] == [224] * 5 + [scale]
        assert [crop.mirrored for crop in mine] == [False, True] * 6
    assert [scale - 224 for scale in SCALES] == [32, 64, 96, 128]


def test_ten_crops_are_of_the_middle_square_and_the_one_is_the_centre() -> None:
    crops = plan_crops(10, 512, 256)
    assert [(crop.left, crop.top) for crop in crops[::2]] == [(128, 0), (160, 0), (128, 32), (160, 32), (144, 16)]
    assert plan_crops(1, 512, 256) == [Crop(256, 144, 16, 224, False)]


def test_pixels_come_from_where_the_plan_says() -> None:
    """An image whose pixels tell their position, at its own scale: the first pixel of each crop."""
    rows, columns = np.mgrid[:256, :341]
    image = np.stack([columns % 256, columns // 256, rows], axis=2).astype(np.uint8)
    crops = [crop for crop in plan_crops(144, 341, 256) if crop.scale == 256 and crop.side == 224]
    for crop, pixels in zip(crops, cut_crops(image, crops), strict=True):
        x = crop.left + (223 if crop.mirrored else 0)
        assert pixels[0, 0].tolist() == [x % 256, x // 256, crop.top]
        assert pixels[0, -1, 0] == (crop.left + (0 if crop.mirrored else 223)) % 256
    whole = cut_crops(image, [Crop(256, 0, 0, 256, False), Crop(256, 0, 0, 256, True)])
    expected = PIL.Image.fromarray(image[:, :256]).resize((224, 224), PIL.Image.Resampling.BILINEAR)
    assert np.array_equal(whole[0], np.asarray(expected))
    assert np.array_equal(whole[1], whole[0][:, ::-1])


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (224, 224), (256, 256), (255, 257)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    for count in (1, 10, 144):
        crops = plan_crops(count, *size)
        assert cut_crops(image, crops[:6]).shape == (min(6, count), 224, 224, 3)
        for crop in crops:
            width, height = resized_size(crop.scale, *size)
            assert 0 <= crop.left <= width - crop.side
            assert 0 <= crop.top <= height - crop.side


@pytest.mark.parametrize(("count", "size", "message"), [(7, (9, 9), "crops must be one of 1, 10, 144, not 7")])
def test_refuses_other_counts(count: int, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_crops(count, *size)
    with pytest.raises(ValueError, match="0 x 3"):
        plan_crops(1, 0, 3)


# ---- means


@pytest.fixture(scope="module")
def network() -> GoogLeNet:
    torch.manual_seed(0)
    built = GoogLeNet(GoogLeNetConfig(classes=4, norm="none")).eval()
    with torch.no_grad():
        built.fc.weight.mul_(30)  # random probabilities that differ
    return built


def test_a_classification_is_the_mean_over_all_crops(network: GoogLeNet) -> None:
    """Also of a square image, whose crops are computed once and weigh as often as they occur."""
    classifier = ImageClassifier(network, InputConvention(std=(60.0, 60.0, 60.0)))
    generator = np.random.default_rng(0)
    for height, width in ((90, 120), (100, 100)):
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        squares = torch.from_numpy(cut_crops(image, plan_crops(10, width, height))).permute(0, 3, 1, 2)
        x = (squares - torch.tensor([123.0, 117.0, 104.0])[:, None, None]) / 60
        with torch.no_grad():
            expected = network(x).softmax(dim=1).mean(dim=0).numpy()
        found = classify(classifier, image, 10, batch=3)
        assert found == pytest.approx(expected, abs=1e-5)
        assert found.sum() == pytest.approx(1)


def test_duplicates_weigh_as_often_as_they_occur(network: GoogLeNet, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    classifier = ImageClassifier(network, InputConvention())
    ten = plan_crops(10, 40, 40)
    monkeypatch.setattr(ensemble, "plan_crops", lambda *_: [ten[0], ten[1], ten[0], ten[0]])
    mixed = classify(classifier, image, 10)
    alone = []
    for crop in ten[:2]:
        monkeypatch.setattr(ensemble, "plan_crops", lambda *_, crop=crop: [crop])
        alone.append(classify(classifier, image, 10))
    assert mixed == pytest.approx((3 * alone[0] + alone[1]) / 4, abs=1e-6)


def predictions(seed: int, *, models: int = 1, crops: int = 10, count: int = 20) -> Predictions:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(7), count).astype(np.float32)
    labels = np.arange(count) % 7
    return Predictions(models, crops, tuple(f"{n}.jpg" for n in range(count)), labels, probabilities, 0.5)


def test_an_ensemble_is_one_mean_over_all_models() -> None:
    first, second, third = (predictions(seed) for seed in range(3))
    together = combine([first, second, third])
    expected = np.mean([part.probabilities for part in (first, second, third)], axis=0)
    assert together.probabilities == pytest.approx(expected, abs=1e-7)
    assert (together.models, together.crops, together.seconds) == (3, 10, 1.5)
    stepwise = combine([combine([first, second]), third])  # two and one, weighted as models
    assert stepwise.probabilities == pytest.approx(together.probabilities, abs=1e-7)
    assert combine([first]).probabilities == pytest.approx(first.probabilities)
    other_order = combine([third, first, second])
    assert other_order.probabilities == pytest.approx(together.probabilities, abs=1e-7)
    most = np.max([first.probabilities, second.probabilities], axis=0)  # the rejected alternative is another thing
    assert not np.array_equal(most.argmax(1), combine([first, second]).probabilities.argmax(1))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "no predictions to combine"),
        ([predictions(0), predictions(1, crops=1)], "from 10 and from 1 crops cannot be combined"),
        ([predictions(0), predictions(1, count=19)], "of different images or classes cannot be combined"),
        ([predictions(0), replace(predictions(1), labels=6 - predictions(1).labels)], "number the classes differently"),
    ],
)
def test_what_cannot_be_combined(parts: list[Predictions], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        combine(parts)


def test_predictions_are_kept(tmp_path: Path) -> None:
    first = predictions(3)
    first.save(tmp_path / "deep" / "p.npz")
    back = Predictions.load(tmp_path / "deep" / "p.npz")
    assert np.array_equal(back.probabilities, first.probabilities)
    assert np.array_equal(back.labels, first.labels)
    assert (back.models, back.crops, back.images, back.seconds) == (1, 10, first.images, 0.5)
    (tmp_path / "x.npz").write_bytes(b"no zip")
    for name in ("x.npz", "none.npz"):
        with pytest.raises(ValueError, match=name):
            Predictions.load(tmp_path / name)


def test_hits_and_their_interval() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.4, 0.4, 0.2]], np.float32)
    some = Predictions(1, 1, ("a", "b", "c"), np.array([0, 2, 1]), probabilities, 0.0)
    assert [some.hits(best) for best in (1, 2, 3)] == [1, 3, 3]
    low, high = interval(743, 1000)  # by hand: centre (0.743 + 1.9207/1000) / (1 + 3.8415/1000)
    assert (low, high) == (pytest.approx(0.7150, abs=1e-4), pytest.approx(0.7691, abs=1e-4))
    assert interval(0, 10)[0] == pytest.approx(0, abs=1e-12)
    line = format_predictions([some]).splitlines()[1].split()
    assert line[:4] == ["1", "1", "1", "66.67%"]
    assert line[-2:] == ["-", "3"]


# ---- files


def test_classifiers_of_every_origin(tmp_path: Path, toy_checkpoint: Path) -> None:
    torch.manual_seed(0)
    caffe, torchvision = GoogLeNet(GoogLeNetConfig(classes=5)), GoogLeNet(replace(TORCHVISION_VARIANT, classes=5))
    own = GoogLeNet(GoogLeNetConfig(classes=5, width=0.25, norm="batch", stem="separable"))
    save_file(to_caffe(caffe), tmp_path / "caffe.safetensors")
    save_file(to_torchvision(torchvision), tmp_path / "torchvision.safetensors")
    save_checkpoint(tmp_path / "own.safetensors", ImageClassifier(own, CAFFE_INPUT, 64, tuple("abcde"), {"data": "x"}))
    x = torch.rand(1, 3, 64, 64)
    for name, network in (("caffe", caffe), ("torchvision", torchvision), ("own", own)):
        found = load_any_classifier(tmp_path / f"{name}.safetensors")
        with torch.no_grad():
            torch.testing.assert_close(found.network(x), network.eval()(x))
    assert (found.size, found.classes, found.provenance, found.convention) == (
        64,
        tuple("abcde"),
        {"data": "x"},
        CAFFE_INPUT,
    )
    assert load_any_classifier(toy_checkpoint).classes == ("background", "square", "disc")
    with pytest.raises(CheckpointError, match="no region classifier of this project"):
        load_checkpoint(tmp_path / "own.safetensors")
    (tmp_path / "text.safetensors").write_text("x")
    save_file({"a.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name, message in (
        ("text", "text.safetensors is no safetensors file"),
        ("other", "its first tensor is 'a.weight'"),
        ("none", "no checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_any_classifier(tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match=r"5 outputs.* 2 "):
        ImageClassifier(own, CAFFE_INPUT, classes=("a", "b"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of two images."""
    generator = np.random.default_rng(0)
    for name in ("disc", "background", "square"):  # folders in another order than the toy network's outputs
        for number in range(2):
            path = tmp_path / "images" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(generator.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(path)
    (tmp_path / "images" / "background" / ".hidden.png").write_text("")
    (tmp_path / "images" / "background" / "notes.txt").write_text("")
    return tmp_path / "images"


def test_eval_classifier(
    folder: Path, toy_checkpoint: Path, tool: Callable[[str], Main], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two models (the toy and itself under another name), then the same from saved predictions."""
    other = tmp_path / "other.safetensors"
    other.write_bytes(toy_checkpoint.read_bytes())
    arguments = [str(folder), "--models", str(toy_checkpoint), str(other), "--crops", "1", "10", "--device", "cpu"]
    assert tool("eval_classifier")([*arguments, "--save", str(tmp_path / "saved")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[:3] for row in rows] == [["1", c, c] for c in "11"] + [["2", "1", "2"]] + [
        ["1", "10", "10"],
        ["1", "10", "10"],
        ["2", "10", "20"],
    ]
    assert rows[0][3:7] == rows[2][3:7]  # a model together with itself is the model
    saved = sorted(map(str, (tmp_path / "saved").glob("*_10.npz")))
    assert len(saved) == 2
    assert tool("eval_classifier")(["--combine", *saved]) == 0
    again = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[:7] for row in again] == [row[:7] for row in rows[3:]]
    assert (
        tool("eval_classifier")([str(folder), "--models", str(toy_checkpoint), "--every", "4", "--device", "cpu"]) == 0
    )
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "2"


def test_eval_classifier_refuses(
    folder: Path, toy_checkpoint: Path, tool: Callable[[str], Main], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "disc").rename(folder / "disk")
    assert tool("eval_classifier")([str(folder), "--models", str(toy_checkpoint)]) == 1
    assert "has no class 'disk' (1 of 3 are unknown); it has background, square, disc" in capsys.readouterr().err
    save_file(to_caffe(GoogLeNet(GoogLeNetConfig(classes=5))), tmp_path / "five.safetensors")
    assert tool("eval_classifier")([str(folder), "--models", str(tmp_path / "five.safetensors")]) == 1
    assert "tells 5 classes apart" in capsys.readouterr().err
    for arguments in ([], [str(folder)], ["--combine"], [str(folder), "--models", "x", "--every", "0"]):
        with pytest.raises(SystemExit) as caught:
            tool("eval_classifier")(arguments)
        assert caught.value.code == 2


def test_classify(
    toy_checkpoint: Path, folder: Path, tool: Callable[[str], Main], capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "background" / "0.png"
    assert tool("classify")([str(path), "--models", str(toy_checkpoint), "--crops", "1", "--device", "cpu"]) == 0
    name, *lines = capsys.readouterr().out.splitlines()
    assert name == str(path)
    shares = [float(line.split()[0]) for line in lines]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=2e-4)
    assert {line.split()[1] for line in lines} == {"background", "square", "disc"}
    assert tool("classify")(["nowhere.jpg"]) == 1
    assert capsys.readouterr().err == "classify: no such file or folder: nowhere.jpg\n"
