"""Detections as users hold them: indexing, iteration, names, conversions."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from detector.data.image import ImageError, read_image
from detector.detections import Detection, Detections

EXAMPLE = Path(__file__).parent.parent / "examples" / "chelsea.jpg"
NAMES = ("dog", "cat", "cow")
BOXES = np.array([[4.0, 8.0, 40.0, 60.0], [50.0, 0.0, 90.0, 60.0], [1.5, 2.5, 3.0, 4.0]])


def found(names: tuple[str, ...] | None = NAMES) -> Detections:
    return Detections(BOXES, np.array([0.9, 0.6, 0.25]), np.array([1, 0, 1]), names)


FIRST = Detection("cat", 0.9, (4.0, 8.0, 40.0, 60.0), 1)


@pytest.mark.parametrize("index", [0, -3, np.int64(0)])
def test_an_integer_gives_one(index: Any) -> None:
    assert found()[index] == FIRST
    assert type(found()[index].score) is float


@pytest.mark.parametrize(
    ("index", "labels"),
    [
        (slice(1, None), [0, 1]),
        (np.array([True, False, True]), [1, 1]),
        (np.array([2, 0]), [1, 1]),
        ([1], [0]),
        (slice(0, 0), []),
    ],
)
def test_what_is_indexed_keeps_its_names(index: Any, labels: list[int]) -> None:
    part = found()[index]
    assert part.labels.tolist() == labels
    assert part.names is found().names is NAMES


def test_an_index_beyond_the_last_ends_a_loop() -> None:
    with pytest.raises(IndexError):
        found()[3]


def test_iteration() -> None:
    items = list(found())
    assert items[0] == FIRST
    assert [one.name for one in items] == ["cat", "dog", "cat"]
    assert [one.name for one in found(None)] == ["class 1", "class 0", "class 1"]
    assert list(Detections.empty(NAMES)) == []
    name, score, box, label = items[1]
    assert (name, score, box, label) == ("dog", 0.6, (50.0, 0.0, 90.0, 60.0), 0)


def test_names_do_not_decide_equality() -> None:
    assert found() == found(None)
    assert hash(found()) == hash(found(None))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_without_a_name_is_rejected(label: int) -> None:
    with pytest.raises(ValueError, match=r"label .*0\.\.2"):
        Detections(BOXES[:1], np.array([0.5]), np.array([label]), NAMES)


def test_the_text_names_classes_and_stays_short() -> None:
    text = repr(found())
    for part in ("3 detections", "cat 0.90", "4 8 40 60", "dog"):
        assert part in text
    assert "class 1" in repr(found(None))
    assert repr(Detections.empty()) == "<0 detections>"
    many = Detections(np.tile(BOXES, (100, 1)), np.zeros(300), np.zeros(300, np.int64), NAMES)
    assert len(repr(many)) < 300


@pytest.mark.parametrize(
    ("category_ids", "expected"), [(None, [2, 1, 2]), ([18, 17, 21], [17, 18, 17]), ({"cat": 5, "dog": 6}, [5, 6, 5])]
)
def test_to_coco(category_ids: Any, expected: list[int]) -> None:
    results = found().to_coco(image_id=7, category_ids=category_ids)
    assert [one["category_id"] for one in results] == expected
    assert results[0] == {"image_id": 7, "category_id": expected[0], "bbox": [4.0, 8.0, 36.0, 52.0], "score": 0.9}
    assert json.loads(json.dumps(results)) == results


def test_pycocotools_reads_to_coco(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    truth = COCO()
    truth.dataset = {
        "images": [{"id": 7, "width": 100, "height": 80}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)],
        "annotations": [],
    }
    truth.createIndex()
    (tmp_path / "found.json").write_text(json.dumps(found().to_coco(7)))
    loaded = truth.loadRes(str(tmp_path / "found.json"))
    assert [one["category_id"] for one in loaded.dataset["annotations"]] == [2, 1, 2]


def test_to_dict_is_json_with_a_column_a_key() -> None:
    columns = json.loads(json.dumps(found().to_dict()))
    assert columns["name"] == ["cat", "dog", "cat"]
    assert columns["box"] == BOXES.tolist()
    assert columns["score"] == [0.9, 0.6, 0.25]
    assert columns["label"] == [1, 0, 1]


# ---- every form of an image


def sources(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    loaded = PIL.Image.open(io.BytesIO(content))
    loaded.load()
    return {
        "path": path,
        "text": str(path),
        "bytes": content,
        "PIL": PIL.Image.open(path),
        "PIL, loaded": loaded,
        "array": read_image(path),
    }


def test_plot_takes_every_form_of_an_image() -> None:
    expected = np.asarray(found().plot(read_image(EXAMPLE)))
    assert (expected != read_image(EXAMPLE)).any()
    for name, source in sources(EXAMPLE).items():
        drawn = found().plot(source)
        assert isinstance(drawn, PIL.Image.Image), name
        assert np.array_equal(np.asarray(drawn), expected), name


def test_all_forms_are_set_upright_and_laid_over_white(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    exif = PIL.Image.Exif()
    exif[274] = 6
    PIL.Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    expected = read_image(pixels)
    for name, source in sources(tmp_path / "turned.png").items():
        image = read_image(source)
        assert image.shape == (30, 20, 3), name
        assert np.abs(np.rot90(image).astype(int) - expected).max() <= 1, name


def test_a_pil_image_stays_and_is_rejected_like_its_file(tmp_path: Path) -> None:
    grey = PIL.Image.fromarray(np.full((5, 6), 70, np.uint8))
    assert read_image(grey).tolist() == np.full((5, 6, 3), 70).tolist()
    assert grey.mode == "L"
    with pytest.raises(ImageError, match="32-bit"):
        read_image(PIL.Image.new("F", (4, 4)))
    (tmp_path / "cut.jpg").write_bytes(EXAMPLE.read_bytes()[:9000])
    with pytest.raises(ImageError, match=r"cut\.jpg: damaged or cut short"):
        read_image(PIL.Image.open(tmp_path / "cut.jpg"))


def test_the_result_type_needs_numpy_only() -> None:
    code = "import sys, detector.detections; print({'torch', 'cv2', 'PIL', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=EXAMPLE.parent.parent)
    assert done.stdout == "set()\n"
