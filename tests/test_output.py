"""What a user gets to see of an image: the table, the JSON, the annotated photograph."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from detector.commands.results import (
    OutputError,
    detect_files,
    format_run,
    is_result,
    result_names,
    result_record,
    write_result,
)
from detector.data.ground_truth import ClassTable
from detector.data.image import Image, read_image
from detector.detections import Detections
from detector.pipeline import ScoredImage
from detector.scores import RegionScores
from detector.settings import DetectorConfig, SuppressionConfig
from proposals.errors import UserError

CLASSES = ClassTable(("cat", "naïve dog"), ("n02121808", None), (1, 2))
IMAGE = np.full((60, 80, 3), 90, np.uint8)
SECONDS = {"proposals": 0.25, "trunk": 0.5, "regions": 0.375, "warp": 0.125, "network": 0.625, "suppression": 0.001}
COUNTS = {"regions_cut": 3, "trunk_pixels": 25_600}


def make_scored(count: int, regions: int = 3, image: Image = IMAGE) -> ScoredImage:
    """`regions` boxes with `count` detections."""
    boxes = np.array([[1, 2, 30.25, 40], [5, 6, 70, 50.126], [0, 0, 80, 60]], np.float32)[:regions]
    scores = np.array([[0.1, 0.2, 0.7], [0.3, 0.6, 0.1], [0.9, 0.05, 0.05]], np.float32)[:regions]
    thresholds = SuppressionConfig(min_score=0.0 if count else 0.99, limit=max(count, 1))
    return ScoredImage(image, boxes, RegionScores(scores), thresholds, CLASSES.names, dict(SECONDS), COUNTS)


def make_both(count: int, regions: int = 3) -> tuple[ScoredImage, Detections]:
    """The same and its detections, after exactly SECONDS."""
    scored = make_scored(count, regions)
    found = scored.detections()
    scored.seconds.update(SECONDS)
    return scored, found


class StubDetector:
    """Finds the same in every image."""

    config = DetectorConfig(models=["stub"])
    classes = CLASSES

    def score(self, path: Path) -> ScoredImage:
        return make_scored(2, image=read_image(path))

    def score_many(self, paths: Iterable[Path]) -> Iterator[tuple[Path, ScoredImage | Exception]]:
        for path in paths:
            try:
                yield path, self.score(path)
            except (UserError, OSError) as error:
                yield path, error


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(IMAGE).save(path)
    return path


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/cat.jpg"], ["cat"]),
        (["cat.jpg", "cat.png"], ["cat.jpg", "cat.png"]),
        (["a/cat.jpg", "b/cat.jpg", "b/dog.jpg"], ["a_cat.jpg", "b_cat.jpg", "dog"]),
        (["a/b/cat.jpg", "c/b/cat.jpg"], ["a_b_cat.jpg", "c_b_cat.jpg"]),
        (["x/cow.jpg", "y/cow.png", "z/cow.jpg.png"], ["x_cow.jpg", "cow.png", "z_cow.jpg.png"]),
        (["a/Cat.jpg", "b/cat.jpg"], ["a_Cat.jpg", "b_cat.jpg"]),
        (["a/caf\u00e9.jpg", "b/Cafe\u0301.jpg"], ["a_caf\u00e9.jpg", "b_Cafe\u0301.jpg"]),
        ([], []),
    ],
)
def test_results_have_names_of_their_own(paths: list[str], names: list[str]) -> None:
    assert result_names([Path(path) for path in paths]) == names


def test_names_follow_the_path_as_given(tmp_path: Path) -> None:
    photo(tmp_path / "pool" / "000017.png")
    (tmp_path / "cat.png").symlink_to(tmp_path / "pool" / "000017.png")
    (tmp_path / "mine").symlink_to(tmp_path / "pool")
    paths = [tmp_path / "cat.png", tmp_path / "mine/000017.png", tmp_path / "pool/000017.png"]
    assert result_names(paths) == ["cat", "mine_000017.png", "pool_000017.png"]


@pytest.mark.parametrize("letter", ["m", "ü", "犬", "\udce9"])
def test_names_too_long_for_results_are_cut_and_stay_apart(letter: str, tmp_path: Path) -> None:
    size = len(os.fsencode(letter))
    paths = [tmp_path / folder / (letter * (240 // size) + ending) for folder in "ab" for ending in ("1.png", "2.png")]
    names = result_names(paths)
    assert len(set(names)) == 4
    for name in names:
        assert len(os.fsencode(f"{name}_detections.jpg")) <= 255
        assert name.removeprefix("a_").removeprefix("b_").startswith(letter * 10)
    assert result_names(paths) == names


def test_paths_that_only_differ_in_where_their_folders_end() -> None:
    paths = [Path(text) for text in ("a_b/c.jpg", "d/c.jpg", "a/b_c.jpg", "e/b_c.jpg")]
    assert len(set(result_names(paths))) == 4


def test_the_table_of_an_image() -> None:
    lines = format_run(Path("photos/a.jpg"), *make_both(2)).splitlines()
    assert lines[0] == (
        "photos/a.jpg  80×60, 3 regions, 1.88 s (proposals 0.25, trunk 0.50, regions 0.38, warp 0.12, "
        "network 0.62, suppression 0.00)"
    )
    assert lines[1].split() == ["class", "score", "x1", "y1", "x2", "y2"]
    assert lines[2].split() == ["naïve", "dog", "0.700", "1", "2", "30", "40"]
    assert lines[3].split() == ["cat", "0.600", "5", "6", "70", "50"]
    assert len(lines) == 4


def test_nothing_found_says_what_came_closest() -> None:
    text = format_run(Path("a.jpg"), *make_both(0))
    assert text.endswith(
        "  nothing above the thresholds; the nearest was naïve dog 0.700, shown from 0.990 "
        "(set suppression.min_score lower to see it)"
    )
    scored, found = make_both(0)
    by_class = format_run(Path("a.jpg"), replace(scored, min_scores=np.array([0.65, 0.9])), found)
    assert "the nearest was cat 0.600, shown from 0.650" in by_class
    nowhere = format_run(Path("a.jpg"), *make_both(0, regions=0))
    assert nowhere.endswith("  nothing: no box of this image is large enough to propose")


def test_the_record() -> None:
    assert result_record(Path("photos/a.jpg"), *make_both(2), CLASSES, ["googlenet_voc"]) == {
        "image": "photos/a.jpg",
        "width": 80,
        "height": 60,
        "detections": [
            {"label": "naïve dog", "wnid": None, "score": 0.7, "box": [1.0, 2.0, 30.25, 40.0]},
            {"label": "cat", "wnid": "n02121808", "score": 0.6, "box": [5.0, 6.0, 70.0, 50.13]},
        ],
        "min_scores": {"cat": 0.0, "naïve dog": 0.0},
        "regions": 3,
        "seconds": SECONDS,
        "model": ["googlenet_voc"],
    }


def test_the_record_says_from_which_score_each_class_is_shown() -> None:
    scored, found = make_both(2)
    scored = replace(scored, min_scores=np.array([0.25, 0.1234567]))
    record = result_record(Path("a.jpg"), scored, found, CLASSES, ["stub"])
    assert record["min_scores"] == {"cat": 0.25, "naïve dog": 0.123457}


def test_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "results"
    scored, found = make_both(2)
    written = result_record(Path("a.jpg"), scored, found, CLASSES, ["stub"])
    write_result(folder, "a", written, found.plot(scored.image))
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "a_detections.jpg"]
    record = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    assert record == written
    assert "naïve" in (folder / "a.json").read_text(encoding="utf-8")
    drawn = read_image(folder / "a_detections.jpg")
    assert drawn.shape == IMAGE.shape
    assert (np.abs(drawn.astype(int) - 90) > 30).any()


def test_a_bad_file_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [photo(tmp_path / "one.png"), tmp_path / "bad.png", photo(tmp_path / "two.png")]
    paths[1].write_text("no image")
    failed = detect_files(StubDetector(), paths, tmp_path / "results")  # type: ignore[arg-type]
    assert len(failed) == 1
    assert failed[0].startswith(f"{paths[1]}: not an image")
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "one.json",
        "one_detections.jpg",
        "two.json",
        "two_detections.jpg",
    ]
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines() if line.startswith(str(tmp_path))] == [
        str(paths[0]),
        str(paths[2]),
    ]
    assert f"detect: {failed[0]}" in captured.err
    summary = captured.err.splitlines()[-3:]
    assert summary[0] == f"2 of 3 images done, results in {tmp_path}/results/"
    assert summary[2] == f"  {failed[0]}"


def test_one_file_gets_no_bar_and_no_second_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    failed = detect_files(StubDetector(), [tmp_path / "bad.png"], tmp_path / "results")  # type: ignore[arg-type]
    assert failed == [f"{tmp_path}/bad.png: empty, no bytes in it"]
    assert capsys.readouterr().err.splitlines() == [
        f"detect: {tmp_path}/bad.png: empty, no bytes in it",
        f"0 of 1 images done, results in {tmp_path}/results/",
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def detect(paths: list[Path], folder: Path) -> list[str]:
    return detect_files(StubDetector(), paths, folder)  # type: ignore[arg-type]


LABELME = json.dumps({"version": "5.0", "shapes": [], "imagePath": "cat.png", "imageHeight": 60, "imageWidth": 80})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cat.json", LABELME.encode()),
        ("cat.json", b"[]"),
        ("cat.json", b"null"),
        ("cat.json", b""),
        ("cat.json", b"\xff\xfe no JSON"),
        ("cat_detections.jpg", b"no image"),
        ("cat_detections.jpg", b"photograph"),
    ],
)
def test_what_no_detect_wrote_is_never_replaced(tmp_path: Path, name: str, content: bytes) -> None:
    paths = [photo(tmp_path / "dog.png"), photo(tmp_path / "cat.png")]
    if content == b"photograph":
        PIL.Image.fromarray(IMAGE).save(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    before = contents(tmp_path)
    with pytest.raises(OutputError) as caught:
        detect(paths, tmp_path)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before  # refused before the first image


def test_a_folder_in_the_place_of_a_result(tmp_path: Path) -> None:
    (tmp_path / "out/cat.json").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"cat\.json"):
        detect([photo(tmp_path / "cat.png")], tmp_path / "out")


def test_earlier_results_of_the_same_images_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = photo(tmp_path / "cat.png"), tmp_path / "out"
    assert detect([path], folder) == []
    (folder / "cat.json").write_text((folder / "cat.json").read_text().replace("0.7", "0.1"))
    monkeypatch.chdir(tmp_path)
    assert detect([Path("cat.png")], folder) == []  # the same one by another name
    assert json.loads((folder / "cat.json").read_text())["detections"][0]["score"] == 0.7
    assert sorted(contents(folder)) == ["cat.json", "cat_detections.jpg"]
    assert is_result(folder / "cat_detections.jpg")
    assert not is_result(path)


def test_results_of_another_image_of_that_name_are_not_replaced(tmp_path: Path) -> None:
    assert detect([photo(tmp_path / "a/cat.png")], tmp_path / "out") == []
    before = contents(tmp_path / "out")
    with pytest.raises(OutputError, match=r"a/cat\.png"):
        detect([photo(tmp_path / "b/cat.png")], tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_photograph_that_is_worked_on_is_not_replaced(tmp_path: Path) -> None:
    path = photo(tmp_path / "cat.png")
    assert detect([path], tmp_path) == []
    with pytest.raises(OutputError, match=r"cat_detections\.jpg"):
        detect([path, tmp_path / "cat_detections.jpg"], tmp_path)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    for folder in (tmp_path / "out", tmp_path / "out/deeper"):
        with pytest.raises(OutputError, match="out: a file"):
            detect([photo(tmp_path / "cat.png")], folder)
    assert (tmp_path / "out").read_text() == "mine"


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = photo(tmp_path / os.fsdecode(b"caf\xe9.png"))
    assert detect([path], tmp_path / "out") == []
    (record,) = (tmp_path / "out").glob("*.json")
    assert os.fsencode(record.name) == b"caf\xe9.json"
    record.read_bytes().decode("utf-8")
    assert json.loads(record.read_text("utf-8"))["image"] == str(path)
    assert detect([path], tmp_path / "out") == []  # and is known again


def test_a_name_too_long_for_its_results(tmp_path: Path) -> None:
    paths = [photo(tmp_path / f"{name}.png") for name in ("a", "m" * 245, "z")]
    assert detect(paths, tmp_path / "out") == []
    records = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    assert {record["image"] for record in records} == set(map(str, paths))
    assert len(contents(tmp_path / "out")) == 6


@pytest.mark.parametrize(
    ("code", "ends"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EILSEQ, False), (errno.EACCES, False)]
)
def test_results_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, ends: bool) -> None:
    """A full disk ends the run, for no image's results have room; another fault costs that image's. No part is left."""
    paths = [photo(tmp_path / f"{name}.png") for name in ("a", "b", "c")]
    write_bytes, calls = Path.write_bytes, []

    def failing(self: Path, data: bytes) -> int:
        calls.append(self)
        if len(calls) == 4:  # the second of b's two files
            write_bytes(self, bytes(data[:10]))
            raise OSError(code, os.strerror(code), str(self))
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", failing)
    if ends:
        with pytest.raises(OSError, match=os.strerror(code)):
            detect(paths, tmp_path / "out")
        done = ["a"]
    else:
        (line,) = detect(paths, tmp_path / "out")
        assert line.startswith(f"{paths[1]}: ")
        assert os.strerror(code).lower() in line
        done = ["a", "c"]
    assert sorted(os.listdir(tmp_path / "out")) == [
        f"{name}{end}" for name in done for end in (".json", "_detections.jpg")
    ]


def test_a_failure_within_the_detector_costs_one_image(tmp_path: Path) -> None:
    class Moody(StubDetector):
        def score(self, path: Path) -> ScoredImage:
            if read_image(path)[0, 0, 0] == 7:
                raise UserError("proposals.own.mine: no boxes of this image")
            return make_scored(1)

    paths = [photo(tmp_path / f"{name}.png") for name in ("a", "b", "c")]
    PIL.Image.fromarray(np.full((60, 80, 3), 7, np.uint8)).save(paths[1])
    (line,) = detect_files(Moody(), paths, tmp_path / "out")  # type: ignore[arg-type]
    assert str(paths[1]) in line
    assert len(contents(tmp_path / "out")) == 4


def test_a_photograph_too_large_for_a_jpeg_costs_one_image(tmp_path: Path) -> None:
    paths = [photo(tmp_path / "a.png"), tmp_path / "wide.png"]
    PIL.Image.new("RGB", (66_000, 2)).save(paths[1])
    (line,) = detect(paths, tmp_path / "out")
    assert line.startswith(f"{paths[1]}: ")
    assert sorted(contents(tmp_path / "out")) == ["a.json", "a_detections.jpg"]
