"""The Python API as users type it: load, presets, every form of an image, thresholds afterwards, streams."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from detector import Detections, Detector, DetectorConfig, read_image
from detector.config import ConfigError
from detector.data.image import Image, ImageError
from detector.members import batch_size
from detector.settings import SuppressionConfig
from detector.suppression import suppress
from proposals import ProposalConfig, Proposals, propose
from proposals.errors import UserError

EXAMPLE = Path(__file__).parent.parent / "examples" / "chelsea.jpg"
SETTINGS = ["proposals.width=0", "proposals.min_width=8", "proposals.max_boxes=20", "suppression.min_score=0"]


@pytest.fixture(scope="module")
def preset(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configs") / "toy.yaml"
    path.write_text(f"models: [{toy_checkpoint}]\nprecision: float32\n")
    return path


@pytest.fixture(scope="module")
def model(preset: Path) -> Detector:
    return Detector.load(preset, device="cpu", overrides=SETTINGS)


@pytest.fixture(scope="module")
def photo(shapes: Path) -> Path:
    return shapes / "JPEGImages" / "val0.png"


def test_the_whole_tour(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a newcomer types it, with a shipped preset."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").symlink_to(EXAMPLE)

    model = Detector.load("fast", device="auto", overrides=["suppression.min_score=0.3"])
    assert "fast" in Detector.presets()
    found = model("photo.jpg")
    for one in found:
        print(one.name, round(one.score, 2), one.box)
    assert capsys.readouterr().out.startswith("cat ")
    image = PIL.Image.open("photo.jpg")
    found.plot(image).save("out.jpg")
    assert len(found[found.scores > 0.8]) == 1
    assert found.to_coco(image_id=7)[0]["category_id"] == 1 + model.classes.names.index("cat")
    assert found.names is model.classes.names
    for path, same in model.stream(["photo.jpg"]):
        assert (path, same) == (Path("photo.jpg"), found)
    scored = model.score(image)
    assert len(scored.detections(min_score=0.1, max_iou=0.5)) >= len(found)


# ---- load


def test_overrides_change_the_preset(preset: Path) -> None:
    model = Detector.load(preset, device="cpu", overrides=["suppression.min_score=0.3", "suppression.limit=7"])
    assert (model.config.suppression.min_score, model.config.suppression.limit) == (0.3, 7)
    with pytest.raises(ConfigError, match=r"'suppression\.min_scor'.*'suppression\.min_score'"):
        Detector.load(preset, overrides=["suppression.min_scor=0.3"])
    with pytest.raises(ConfigError, match="DetectorConfig"):
        Detector.load(DetectorConfig(), overrides=["batch=1"])


def test_presets_are_those_that_load() -> None:
    assert Detector.presets() == ["default", "fast"]


@pytest.mark.parametrize(("batch", "device", "expected"), [(None, "cpu", 8), (None, "cuda:1", 256), (5, "cuda", 5)])
def test_the_batch_suits_the_device(batch: int | None, device: str, expected: int) -> None:
    assert batch_size(DetectorConfig(batch=batch), torch.device(device)) == expected
    with pytest.raises(ValueError, match="batch"):
        DetectorConfig(batch=0)


# ---- images


def test_every_form_of_an_image_gives_the_same(model: Detector, photo: Path) -> None:
    expected = model(read_image(photo))
    assert len(expected) > 3
    content = photo.read_bytes()
    opened = PIL.Image.open(io.BytesIO(content))
    for source in (photo, str(photo), content, opened, opened.convert("RGBA"), read_image(photo) / 255):
        assert model(source) == expected


def test_files_and_pil_images_are_set_upright(model: Detector, photo: Path, tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[274] = 3
    PIL.Image.open(photo).rotate(180).save(tmp_path / "turned.png", exif=exif)
    expected = model(photo)
    assert model(tmp_path / "turned.png") == expected
    assert model(PIL.Image.open(tmp_path / "turned.png")) == expected


def test_errors_name_the_file(model: Detector, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no image")
    with pytest.raises(ImageError, match=r"notes\.jpg: not an image"):
        model(tmp_path / "notes.jpg")
    with pytest.raises(ImageError, match=r"nothing\.jpg: no such file"):
        model(str(tmp_path / "nothing.jpg"))
    with pytest.raises(ImageError, match="<bytes>"):
        model(b"no image")


# ---- scores once, detections many times


def test_thresholds_afterwards_are_those_of_the_config(model: Detector, photo: Path) -> None:
    scored = model.score(photo)
    assert scored.detections() == model(photo)
    assert scored.detections().names is scored.names is model.classes.names
    for thresholds in (
        {"min_score": 0.4},
        {"max_iou": 0.7},
        {"soft_sigma": 0.5},
        {"limit": 3},
        {"min_score": 0.2, "max_iou": 0.5, "limit": 5},
        {"soft_sigma": 0.5, "max_iou": 0.5},
        {"vote": 0.5},
    ):
        given: dict[str, Any] = {"min_score": 0.0} | thresholds
        expected = suppress(scored.class_boxes, scored.scores.probabilities, SuppressionConfig(**given))
        assert scored.detections(**given) == expected, thresholds
    assert scored.class_boxes is scored.class_boxes
    with pytest.raises(ValueError, match="min_score"):
        scored.detections(min_score=2)
    with pytest.raises(TypeError):
        scored.detections(threshold=0.5)  # type: ignore[call-arg]


def test_giving_max_iou_selects_greedy_suppression(preset: Path, photo: Path) -> None:
    soft = Detector.load(preset, device="cpu", overrides=[*SETTINGS, "suppression.soft_sigma=0.3"]).score(photo)
    greedy = suppress(soft.class_boxes, soft.scores.probabilities, SuppressionConfig(0.0, 0.5))
    assert soft.detections(max_iou=0.5) == greedy != soft.detections()
    assert soft.detections(max_iou=0.5, soft_sigma=0.3) == soft.detections()


def test_a_scored_image_keeps_the_stages(model: Detector, photo: Path) -> None:
    scored = model.score(photo)
    assert np.array_equal(scored.image, read_image(photo))
    assert len(scored.boxes) == len(scored.scores) == 20
    assert list(scored.seconds) == ["proposals", "warp", "network"]
    scored.detections()
    assert list(scored.seconds) == ["proposals", "warp", "network", "suppression"]
    given = model.score(photo, scored.boxes[:4].tolist())  # type: ignore[arg-type]
    assert len(given.boxes) == 4
    assert "proposals" not in given.seconds


def test_nothing_to_propose(preset: Path) -> None:
    model = Detector.load(preset, device="cpu", overrides=["proposals.width=0"])
    scored = model.score(np.zeros((1, 1, 3), np.uint8))
    assert scored.class_boxes.shape == (0, 2, 4)
    assert scored.detections() == Detections.empty()


# ---- streams


@pytest.fixture
def files(shapes: Path, tmp_path: Path) -> list[Path]:
    (tmp_path / "bad.jpg").write_text("no image")
    images = shapes / "JPEGImages"
    return [images / "val1.png", tmp_path / "bad.jpg", images / "val0.png", tmp_path / "none.jpg", images / "val2.png"]


def test_a_stream_goes_on_after_a_bad_file(
    model: Detector, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="detector"):
        results = list(model.stream(map(str, files)))
    assert [path for path, _ in results] == [files[0], files[2], files[4]]
    for path, found in results:
        alone = model(path)
        assert found.labels.tolist() == alone.labels.tolist()
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-3)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "bad.jpg: not an image" in caplog.messages[0]
    assert "none.jpg: no such file" in caplog.messages[1]


def test_the_caller_may_take_the_errors(model: Detector, files: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    failed: dict[Path, Exception] = {}
    assert len(list(model.stream(files, on_error=failed.__setitem__))) == 3
    assert list(failed) == [files[1], files[3]]
    assert all(isinstance(error, ImageError) for error in failed.values())
    assert not caplog.records


def test_a_stream_reads_no_further_than_it_is_asked(model: Detector, files: list[Path]) -> None:
    asked = []

    def paths() -> Iterator[Path]:
        for path in files:
            asked.append(path)
            yield path

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        stream = model.stream(paths())
        next(stream)
        assert asked == files[: len(asked)]
        assert len(asked) <= 3  # with one thread one is in work and one waits
        stream.close()  # type: ignore[attr-defined]
    finally:
        torch.set_num_threads(before)


# ---- own proposals, drawing


def test_a_source_that_fails_costs_its_image(
    preset: Path, files: list[Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def source(image: Image) -> tuple[np.ndarray, np.ndarray]:
        raise UserError("no boxes today")

    monkeypatch.setattr("detector.pipeline.find", lambda *_, **__: source(np.zeros((1, 1, 3), np.uint8)))
    model = Detector.load(preset, device="cpu")
    with caplog.at_level(logging.WARNING, logger="detector"):
        assert list(model.stream(files[:1])) == []
    assert f"{files[0]}: no boxes today" in caplog.text


def test_found_objects_are_drawn_with_their_names(model: Detector, photo: Path) -> None:
    found = model(photo)
    assert {one.name for one in found} <= {"square", "disc"}
    drawn = found.plot(photo)
    assert drawn.size == PIL.Image.open(photo).size
    assert (np.asarray(drawn) != read_image(photo)).any()


def test_proposals_by_themselves(photo: Path) -> None:
    found = propose(read_image(photo), ProposalConfig(width=0, min_width=8, max_boxes=5))
    assert isinstance(found, Proposals)
    assert found.boxes.shape == (5, 4)
