"""Which images detect works on: files, globs, lists, pipes, videos, addresses."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from detect_runs import StubDetector, contents, make_run, photo

from detector.commands.detecting import Manner
from detector.commands.path_lines import PathLines
from detector.commands.sources import Collected, Source, collect
from detector.data.image import ImageError, read_image
from detector.data.video import Every, sample_frames


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.png", "deep/c.png", "deep/er/d.png"):
        photo(tmp_path / "photos" / name)
    (tmp_path / "photos/notes.txt").touch()
    return Path("photos")


def paths(*sources: str, recursive: bool = False) -> list[str]:
    collected = collect(sources, recursive=recursive)
    assert collected.failures == []
    return [one.path.as_posix() for one in collected.before]


def failure(*sources: str) -> str:
    (line,) = collect(sources, recursive=False).failures
    return line


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("photos/*.png", ["photos/a.png", "photos/b.png"]),
        ("photos/**/*.png", ["photos/a.png", "photos/b.png", "photos/deep/c.png", "photos/deep/er/d.png"]),
        ("photos/[b-z]*", ["photos/b.png"]),  # neither notes.txt nor the folder
        ("photos/d?ep", ["photos/deep/c.png"]),
        ("*/deep/**", ["photos/deep/c.png", "photos/deep/er/d.png"]),
    ],
)
def test_globs_are_expanded_and_sorted(photos: Path, pattern: str, wanted: list[str]) -> None:
    assert paths(pattern) == wanted


def test_a_file_whose_name_looks_like_a_glob_a_list_or_a_folder_is_meant(photos: Path) -> None:
    for name in ("img[1].png", "@home.png", "what?.png"):
        photo(Path(name))
    assert paths("img[1].png", "@home.png", "what?.png") == ["img[1].png", "@home.png", "what?.png"]


def test_what_a_glob_does_not_match(photos: Path) -> None:
    assert failure("photos/*.jpg") == "no file matches photos/*.jpg"
    assert failure("photos/*.txt") == "no image or video matches photos/*.txt"


def test_a_list_begins_at_its_own_folder(photos: Path) -> None:
    names = "b.png\r\n\ndeep\n deep/er/d.png \n".replace(" ", "")
    Path("photos/some.txt").write_bytes(b"\xef\xbb\xbf" + names.encode() + os.fsencode(Path.cwd() / "photos/a.png"))
    wanted = ["photos/b.png", "photos/deep/c.png", "photos/deep/er/d.png", (Path.cwd() / "photos/a.png").as_posix()]
    assert paths("@photos/some.txt") == wanted


def test_a_wrong_line_in_a_list_is_named(photos: Path) -> None:
    Path("photos/some.txt").write_text("a.png\nphotos/b.png\n")
    collected = collect(["@photos/some.txt"], recursive=False)
    assert [one.path.as_posix() for one in collected.before] == ["photos/a.png"]
    assert collected.failures == [
        "no such file or folder: photos/photos/b.png (photos/some.txt, line 2; paths in a list begin at its folder)"
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "a list that cannot be read: no such file or directory"),
        (b"", "an empty list"),
        ("a.png\n".encode("utf-16"), "not a text in UTF-8"),
        (b"\x89PNG\0\0", "not a text in UTF-8"),
    ],
)
def test_a_list_that_is_none(photos: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        Path("list.txt").write_bytes(content)
    assert failure("@list.txt").startswith(f"list.txt: {said}")


@pytest.mark.parametrize("address", ["https://example.org/cat.jpg", "http://example.org/?a=b"])
def test_an_address_gets_a_hint(address: str) -> None:
    assert failure(address).endswith(f"download it first:  curl -O {address}")
    assert "detect reads files" in failure("rtsp://camera/1")


def test_a_file_is_listed_once_in_the_order_of_the_sources(photos: Path) -> None:
    Path("list.txt").write_text("photos/a.png\nphotos/b.png\n")
    assert paths("photos/b.png", "photos/*.png", "@list.txt", "photos") == ["photos/b.png", "photos/a.png"]


def test_videos_in_a_folder_are_passed_over_and_named_ones_are_not(photos: Path) -> None:
    (photos / "clip.MP4").touch()
    collected = collect(["photos"], recursive=False)
    assert len(collected) == 2
    assert "videos among them: 1; name a video by itself, or by a glob in quotes" in collected.remarks()
    assert paths("photos/*.MP4") == ["photos/clip.MP4"]


def test_outside_its_root_an_image_is_named_by_its_file_name(tmp_path: Path) -> None:
    assert str(Source(tmp_path / "a/b.jpg", tmp_path / "c").relative) == "b.jpg"
    assert str(Source(tmp_path / "..a/b.jpg", tmp_path).relative) == "..a/b.jpg"


# ---- a pipe


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The end of standard input to write to."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stream:
        monkeypatch.setattr("sys.stdin", stream)
        yield writing


def test_paths_are_worked_on_as_they_come(photos: Path, pipe: int, tmp_path: Path) -> None:
    """While the pipe stays open, and nothing more is in it."""
    folder, detector = tmp_path / "out", StubDetector()
    thread = threading.Thread(target=make_run, args=(["-"], folder), kwargs={"detector": detector})
    thread.start()
    for number, name in enumerate(("photos/a.png", "photos/deep", f"{tmp_path}/photos/b.png"), 1):
        os.write(pipe, f"{name}\n".encode())
        deadline = time.monotonic() + 120
        while len(contents(folder)) < 2 * number and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(contents(folder)) == 2 * number
    os.write(pipe, b"photos/a.png\nphotos/gone.png\nphotos/deep/er/d.png")  # the last without a line's end
    os.close(pipe)
    thread.join(120)
    assert detector.seen == ["photos/a", "photos/deep/c", "photos/b", "photos/deep/er/d"]


def test_lines_that_wait_are_one_batch() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a\n\nb\r\nc")
    batches = PathLines(reading).batches()
    assert list(next(batches)) == ["a", "b"]
    os.write(writing, b"d\n\xe9\n")
    assert list(next(batches)) == ["cd", os.fsdecode(b"\xe9")]
    os.close(writing)
    assert list(batches) == []
    os.close(reading)


def test_failures_in_a_pipe_cost_themselves(photos: Path, pipe: int, tmp_path: Path) -> None:
    os.write(pipe, b"gone.png\nhttps://example.org/a.jpg\nphotos/a.png\n")
    os.close(pipe)
    run = make_run(["photos/b.png", "-", "photos/deep/c.png"], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.json")) == ["a.json", "b.json", "c.json"]
    missing, address = run.failures
    assert missing == "no such file or folder: gone.png (from standard input)"
    assert "curl -O https://example.org/a.jpg" in address


def test_an_empty_or_closed_pipe(pipe: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.close(pipe)
    with pytest.raises(ImageError, match="no path on standard input"):
        make_run(["-"], tmp_path / "out")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ImageError, match="standard input is closed"):
        list(Collected(piped=True).batches(False))


# ---- videos


def make_video(path: Path, frames: int = 30, rate: float = 10, turn: int | None = None) -> Path:
    """A film that turns from black to white; frame i has a grey level of about 8 i. Its left half is red."""
    path.parent.mkdir(exist_ok=True)
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, (96, 64))
    for number in range(frames):
        image = np.full((64, 96, 3), 8 * number, np.uint8)
        image[:, :48] = (0, 0, 255)
        writer.write(image)
    writer.release()
    if turn is not None:
        set_rotation(path, turn)
    return path


def set_rotation(path: Path, degrees: int) -> None:
    """Write the matrix of an MP4's track header, 16.16 fixed point: a turn clockwise, as telephones state it."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # behind version, flags, times, track, duration, layer, volume
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = (cos, sin, 0, -sin, cos, 0, 0, 0, 0x4000)
    numbers = [value * 0x10000 for value in matrix[:8]] + [0x40000000]
    content[at : at + 36] = b"".join(int(value).to_bytes(4, "big", signed=True) for value in numbers)
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
@pytest.mark.parametrize(
    ("every", "wanted"),
    [
        ("1s", [0, 10, 20]),
        ("0.5s", [0, 5, 10, 15, 20, 25]),
        ("0.25s", [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28]),  # the first frame at or behind each quarter
        ("9s", [0]),
        ("12", [0, 12, 24]),
        ("1", list(range(30))),
    ],
)
def test_frames_and_their_times(tmp_path: Path, suffix: str, every: str, wanted: list[int]) -> None:
    frames = list(sample_frames(make_video(tmp_path / f"clip{suffix}"), Every.parse(every)))
    assert [frame.number for frame in frames] == wanted
    np.testing.assert_allclose([frame.time for frame in frames], np.array(wanted) / 10, atol=1e-3)
    for frame in frames:
        assert frame.image.shape == (64, 96, 3)
        assert abs(float(frame.image[:, 60:].mean()) - 8 * frame.number) < 6
        assert frame.image[32, 20, 0] > 200  # red comes first
        assert frame.image[32, 20, 2] < 60


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_frame_is_turned_as_the_file_says(tmp_path: Path, turn: int) -> None:
    (frame,) = sample_frames(make_video(tmp_path / "clip.mp4", turn=turn), Every(seconds=9))
    assert frame.image.shape == ((64, 96, 3) if turn == 180 else (96, 64, 3))
    red = {90: frame.image[:40], 180: frame.image[:, 60:], 270: frame.image[60:]}[turn]  # the left side, turned
    assert red[:, :, 0].mean() > 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a video that OpenCV reads"),
        (b"a text", "not a video that OpenCV reads"),
        ("cut", "not a video that OpenCV reads"),  # an MP4 has its directory at its end
        (None, "no such file"),
    ],
)
def test_a_video_that_cannot_be_read(tmp_path: Path, content: bytes | str | None, said: str) -> None:
    path = tmp_path / "clip.mp4"
    if content == "cut":
        whole = make_video(path).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"clip\.mp4: {said}") as caught:
        list(sample_frames(path, Every(frames=1)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_video_cut_short_gives_what_there_is_and_a_line(tmp_path: Path, suffix: str) -> None:
    path = make_video(tmp_path / f"clip{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    read: list[int] = []
    with pytest.raises(ImageError, match=r"cut short or damaged: \d+ of 30 frames, up to \d\.\d s"):
        read.extend(frame.number for frame in sample_frames(path, Every(frames=1)))
    assert 5 < len(read) < 28
    assert read == list(range(len(read)))


@pytest.mark.parametrize("text", ["0", "0s", "-1", "1m", "s", "", "1.5", "nan", "٣"])
def test_other_intervals_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"seconds"):
        Every.parse(text)


def test_each_frame_is_an_image_with_its_time(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clips/my clip.mp4")
    out = tmp_path / "out"
    manner = Manner(every=Every(seconds=2))
    assert make_run([path], out, "json", "yolo", "labelme", "csv", "coco", manner=manner).failures == []
    names = ["my clip_000000.000", "my clip_000002.000"]
    for name, seconds, number in zip(names, (0.0, 2.0), (0, 20), strict=True):
        record = json.loads((out / f"{name}.json").read_text())
        assert (record["image"], record["time"], record["frame"]) == (str(path), seconds, number)
        assert (out / f"{name}_detections.jpg").is_file()
        frame = read_image(out / f"images/{name}.jpg")
        assert abs(float(frame[:, 60:].mean()) - 8 * number) < 6
        labels = json.loads((out / f"labelme/{name}.json").read_text())
        assert (out / "labelme" / labels["imagePath"]).resolve() == out / f"images/{name}.jpg"
        assert (out / f"labels/{name}.txt").is_file()
    assert {line.split(",")[1] for line in (out / "detections.csv").read_text().splitlines()[1:]} == {"0.0", "2.0"}
    ids = {entry["image_id"] for entry in json.loads((out / "detections.coco.json").read_text())}
    assert ids == {f"{name}.jpg" for name in names}
    assert make_run([path], out, "json", manner=manner).failures == []  # its own results are replaced


def test_a_damaged_video_among_photographs(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no film")
    run = make_run(["photos/a.png", "bad.mp4", "photos/b.png"], tmp_path / "out")
    assert run.failures == ["bad.mp4: not a video that OpenCV reads, or damaged at its beginning"]
    assert len(contents(tmp_path / "out")) == 4
