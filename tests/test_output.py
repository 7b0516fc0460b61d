"""What a user gets to see of an image: the table, the JSON, the annotated photograph."""

from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import PIL.Image
import pytest
from detect_runs import CLASSES, IMAGE, SECONDS, StubDetector, contents, make_both, make_run, make_scored, photo

from detector.commands.result_names import Names
from detector.commands.results import Item, format_run, result_record
from detector.commands.sources import collect
from detector.commands.written import OutputError, is_result
from detector.data.image import read_image
from detector.formats import rounded
from detector.pipeline import ScoredImage
from proposals.errors import UserError


def detect(paths: list[Path], folder: Path, detector: Any = None) -> list[str]:
    return make_run(paths, folder, detector=detector).failures


def names_of(sources: list[str | Path], *, recursive: bool = False) -> list[str]:
    """The names of the results of sources."""
    found = collect([str(source) for source in sources], recursive=recursive).before
    names = Names(one.relative for one in found)
    return [names.claim(one.relative, str(one.path.absolute())) for one in found]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/cat.jpg"], ["cat"]),
        (["cat.jpg", "cat.png"], ["cat.jpg", "cat.png"]),
        (["a/cat.jpg", "b/cat.jpg", "b/dog.jpg"], ["a/cat", "b/cat", "b/dog"]),
        (["x/a/b/cat.jpg", "x/c/b/cat.jpg"], ["a/b/cat", "c/b/cat"]),
        (["a/Cat.jpg", "b/cat.jpg"], ["a/Cat", "b/cat"]),
        (["a/caf\u00e9.jpg", "b/Cafe\u0301.jpg"], ["a/caf\u00e9", "b/Cafe\u0301"]),
        (["a.b.jpg", "a.c.jpg"], ["a.b", "a.c"]),
    ],
)
def test_files_named_one_by_one_have_their_names_or_as_much_of_their_paths_as_tells_them_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], names: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert names_of([photo(Path(path)) for path in paths]) == names


def test_paths_below_a_folder_are_kept(tmp_path: Path) -> None:
    for path in ("dog.jpg", "a/dog.jpg", "a/b/dog.jpg", "a/b/dog.png"):
        photo(tmp_path / "photos" / path)
    wanted = ["a/b/dog.jpg", "a/b/dog.png", "a/dog", "dog"]
    assert sorted(names_of([tmp_path / "photos"], recursive=True)) == wanted
    assert sorted(names_of([tmp_path / "photos" / "**" / "*.*g"])) == wanted
    (tmp_path / "list.txt").write_text("photos/dog.jpg\nphotos/a/dog.jpg\n")
    assert names_of([f"@{tmp_path}/list.txt"]) == ["photos/dog", "photos/a/dog"]


def test_names_follow_the_path_as_given(tmp_path: Path) -> None:
    photo(tmp_path / "pool" / "000017.png")
    (tmp_path / "cat.png").symlink_to(tmp_path / "pool" / "000017.png")
    assert names_of([tmp_path / "cat.png", tmp_path / "pool/000017.png"]) == ["cat", "000017"]


@pytest.mark.parametrize("letter", ["m", "ü", "犬", "\udce9"])
def test_names_too_long_for_results_are_cut_and_stay_apart(letter: str) -> None:
    size = len(os.fsencode(letter))
    paths = [f"{folder}/{letter * (240 // size)}{ending}" for folder in "ab" for ending in ("1.png", "2.png")]

    def claimed() -> list[str]:
        names = Names(map(PurePath, paths))
        return [names.claim(PurePath(path), f"/photos/{path}") for path in paths]

    names = claimed()
    assert len(set(names)) == 4
    for name, path in zip(names, paths, strict=True):
        assert len(os.fsencode(f"{name.rpartition('/')[2]}_detections.jpg")) <= 255
        assert name.startswith(path[: 2 + 10])
    assert claimed() == names


def test_a_name_that_is_taken_by_another_image(tmp_path: Path) -> None:
    """Of a pipe nobody knows what is still to come."""
    names = Names()
    one, two, three = (names.claim(PurePath("cat.jpg"), whole) for whole in ("/a/cat.jpg", "/b/cat.jpg", "/c/cat.jpg"))
    assert (one, two) == ("cat", "cat.jpg")
    assert three.startswith("cat-")
    assert names.claim(PurePath("cat.jpg"), "/b/cat.jpg") == two


def test_the_table_of_an_image() -> None:
    lines = format_run("photos/a.jpg", *make_both(2)).splitlines()
    assert lines[0] == (
        "photos/a.jpg  80×60, 3 regions, 1.88 s (proposals 0.25, trunk 0.50, regions 0.38, warp 0.12, "
        "network 0.62, suppression 0.00)"
    )
    assert lines[1].split() == ["class", "score", "x1", "y1", "x2", "y2"]
    assert lines[2].split() == ["naïve", "dog", "0.700", "1", "2", "30", "40"]
    assert lines[3].split() == ["cat", "0.600", "5", "6", "70", "50"]
    assert len(lines) == 4


def test_nothing_found_says_what_came_closest() -> None:
    text = format_run("a.jpg", *make_both(0))
    assert text.endswith(
        "  nothing above the thresholds; the nearest was naïve dog 0.700, shown from 0.990 (--score 0.69 shows it)"
    )
    scored, found = make_both(0)
    by_class = format_run("a.jpg", replace(scored, min_scores=np.array([0.65, 0.9])), found)
    assert "the nearest was cat 0.600, shown from 0.650" in by_class
    nowhere = format_run("a.jpg", *make_both(0, regions=0))
    assert nowhere.endswith("  nothing: no box of this image is large enough to propose")


ITEM = Item(Path("photos/a.jpg"), PurePath("a.jpg"), "a", 1, content="12ab")


def test_the_record() -> None:
    scored, found = make_both(2)
    assert result_record(ITEM, scored, rounded(found), CLASSES, ["googlenet_voc"], "34cd") == {
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
        "image_sha256": "12ab",
        "settings_sha256": "34cd",
    }


def test_the_record_says_from_which_score_each_class_is_shown() -> None:
    scored, found = make_both(2)
    for shown, wanted in (
        ([0.25, 0.1234567], {"cat": 0.25, "naïve dog": 0.123457}),
        ([0.25, np.inf], {"cat": 0.25}),
    ):
        scored = replace(scored, min_scores=np.array(shown))
        assert result_record(ITEM, scored, found, CLASSES, ["stub"], "")["min_scores"] == wanted


def test_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "results"
    assert detect([photo(tmp_path / "a.png")], folder) == []
    assert sorted(contents(folder)) == ["a.json", "a_detections.jpg"]
    record = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    assert [one["label"] for one in record["detections"]] == ["naïve dog", "cat"]
    assert "naïve" in (folder / "a.json").read_text(encoding="utf-8")
    drawn = read_image(folder / "a_detections.jpg")
    assert drawn.shape == IMAGE.shape
    assert (np.abs(drawn.astype(int) - 90) > 30).any()


def test_a_bad_file_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [photo(tmp_path / "one.png"), tmp_path / "bad.png", photo(tmp_path / "two.png")]
    paths[1].write_text("no image")
    failed = detect(paths, tmp_path / "results")
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
    done, found, *rest = captured.err.splitlines()[-4:]
    assert re.fullmatch(r"detect: 2 of 3 images done in \d+\.\d s \(\d+ a minute\); results in .*/results/", done)
    assert found == "detect: found naïve dog 2, cat 2"
    assert rest == ["detect: could not be done:", f"detect:   {failed[0]}"]


def test_one_file_gets_no_bar_and_no_second_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    failed = detect([tmp_path / "bad.png"], tmp_path / "results")
    assert failed == [f"{tmp_path}/bad.png: empty, no bytes in it"]
    assert capsys.readouterr().err.splitlines() == [
        f"detect: {tmp_path}/bad.png: empty, no bytes in it",
        "detect: 0 of 1 images done",
    ]


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
    (line,) = detect(paths, tmp_path / "out", Moody())
    assert str(paths[1]) in line
    assert len(contents(tmp_path / "out")) == 4


def test_a_photograph_too_large_for_a_jpeg_costs_one_image(tmp_path: Path) -> None:
    paths = [photo(tmp_path / "a.png"), tmp_path / "wide.png"]
    PIL.Image.new("RGB", (66_000, 2)).save(paths[1])
    (line,) = detect(paths, tmp_path / "out")
    assert line.startswith(f"{paths[1]}: ")
    assert sorted(contents(tmp_path / "out")) == ["a.json", "a_detections.jpg"]
