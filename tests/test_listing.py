"""Which images a command works on, of the files and folders that it was given."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.features
import PIL.Image
import pytest

from detector.data import listing as image_module
from detector.data.ground_truth import DataError
from detector.data.image import ImageError, read_image
from detector.data.labelled_images import read_image_folder
from detector.data.listing import list_images

SUFFIXES = {
    "JPEG": ".jpg .jpeg .jpe .jfif .jif .jfi .JPG .Jpeg .jpg_large .mpo",
    "PNG": ".png .apng .PNG",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "DIB": ".dib",
    "GIF": ".gif",
    "TIFF": ".tif .tiff",
    "PPM": ".ppm .pgm .pbm .pnm",
    "JPEG2000": ".jp2 .j2k .jpx .jpf .jpc .j2c",
} | ({"AVIF": ".avif"} if PIL.features.check("avif") else {})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(paths: object, folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in paths]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_folder_gives_every_kind_that_can_be_read(photos: Path, kind: str) -> None:
    made = [photos / f"{number}{suffix}" for number, suffix in enumerate(SUFFIXES[kind].split())]
    for path in made:
        PIL.Image.new("RGB", (8, 6), (250, 10, 20)).save(path, kind)
    found = list_images([photos]).paths
    assert list(found) == made
    assert all(np.abs(read_image(path).astype(int) - (250, 10, 20)).max() < 12 for path in found)


def test_sorted_and_no_folder_that_is_called_like_an_image(photos: Path) -> None:
    touch(photos, "b.JPG", "a.png", "more/c.webp", "trap.jpg/x.txt")
    assert names(list_images([photos]).paths, photos) == ["a.png", "b.JPG"]
    assert names(list_images([photos], recursive=True).paths, photos) == ["a.png", "b.JPG", "more/c.webp"]
    assert list_images([]).paths == ()


def test_hidden_files_and_folders_are_left_out(photos: Path) -> None:
    hidden = ("._a.jpg", ".b.jpg", ".thumbnails/t.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", "deep/.cache/in/x.jpg")
    touch(photos, "a.jpg", "deep/b.jpg", *hidden)
    assert names(list_images([photos], recursive=True).paths, photos) == ["a.jpg", "deep/b.jpg"]
    assert list_images([photos / ".thumbnails"]).paths == (photos / ".thumbnails/t.jpg",)  # named outright
    assert list_images([photos / "._a.jpg"]).paths == (photos / "._a.jpg",)


def test_links_are_followed_and_end(photos: Path, tmp_path: Path) -> None:
    touch(photos, "a.jpg", "sub/b.jpg")
    touch(tmp_path / "real", "x.jpg", "y/z.jpg")
    (photos / "link").symlink_to(tmp_path / "real")
    (photos / "sub/loop").symlink_to(photos)
    (photos / "again").symlink_to(photos / "sub")
    (photos / "latest.jpg").symlink_to(photos / "a.jpg")
    found = names(list_images([photos], recursive=True).paths, photos)
    assert len(found) == 5
    assert {"a.jpg", "latest.jpg", "link/x.jpg", "link/y/z.jpg"} < set(found)
    assert sum(name.endswith("b.jpg") for name in found) == 1


def test_one_file_by_several_names_is_listed_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(photos, "a.jpg", "b.jpg")
    (photos.parent / "other").symlink_to(photos)
    monkeypatch.chdir(photos)
    same = ["b.jpg", "./b.jpg", photos / "b.jpg", "../photos/b.jpg", "../other/b.jpg", ".", photos]
    assert list_images(same).paths == (Path("b.jpg"), Path("a.jpg"))


def test_what_is_passed_over_is_counted_by_suffix(photos: Path) -> None:
    touch(photos, "a.jpg", "b.HEIC", "c.heic", "d.cr2", "README", ".hidden.heic", "deep/e.heic")
    listing = list_images([photos])
    assert listing.passed_over == {".heic": 2, ".cr2": 1, "": 1}
    (line,) = listing.warnings
    assert line.startswith("4 files passed over: 2 .heic")
    assert list_images([photos], recursive=True).passed_over[".heic"] == 3
    assert list_images([photos / "d.cr2"]).warnings == ()  # named outright, it is not passed over


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ((), ["empty"]),
        (("a.heic", "b.txt", "c.txt"), ["2 .txt", "1 .heic"]),
        ((".a.jpg", ".trash/b.jpg"), ["2 hidden"]),
        (("deep/a.jpg", "deeper/b.jpg"), ["2 sub-folders", "--recursive"]),
    ],
)
def test_a_folder_without_images_says_what_there_is(photos: Path, inside: tuple[str, ...], said: list[str]) -> None:
    touch(photos, *inside)
    with pytest.raises(ImageError) as caught:
        list_images([photos])
    message = str(caught.value)
    assert message.startswith(f"{photos}: ")
    assert "\n" not in message
    assert all(text in message for text in said), message


def test_a_source_that_gives_nothing_costs_itself(photos: Path, tmp_path: Path) -> None:
    touch(photos, "a.jpg")
    (tmp_path / "empty").mkdir()
    gone, long = tmp_path / "gone.jpg", tmp_path / ("m" * 300)
    (tmp_path / "dangling.jpg").symlink_to(gone)
    listing = list_images([gone, tmp_path / "empty", photos, long, tmp_path / "dangling.jpg"])
    assert listing.paths == (photos / "a.jpg", tmp_path / "dangling.jpg")  # which fails when it is read
    wrong = (gone, tmp_path / "empty", long)
    assert all(str(source) in line for source, line in zip(wrong, listing.failures, strict=True))
    with pytest.raises(ImageError, match=r"(?s)gone\.jpg.*empty"):
        list_images([gone, tmp_path / "empty"])


def test_a_folder_that_cannot_be_listed_is_reported(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(photos, "a.jpg", "locked/b.jpg", "open/c.jpg")
    locked(monkeypatch, photos / "locked")
    listing = list_images([photos], recursive=True)
    assert names(listing.paths, photos) == ["a.jpg", "open/c.jpg"]
    (line,) = listing.failures
    assert str(photos / "locked") in line
    assert "permission denied" in line
    with pytest.raises(DataError, match="locked"):
        read_image_folder(photos)


def locked(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As for a user who may not read the folder; root may."""
    listdir: Callable[..., object] = os.listdir

    def refusing(path: str | Path) -> object:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(image_module.os, "listdir", refusing)


def test_names_that_are_not_utf8(photos: Path) -> None:
    raw = os.fsencode(photos) + b"/caf\xe9.jpg"
    Path(os.fsdecode(raw)).touch()
    (found,) = list_images([photos]).paths
    assert os.fsencode(found) == raw


def test_classes_take_the_same_files_as_commands(photos: Path) -> None:
    touch(photos, "cat/a.JFIF", "cat/.thumbnails/a.jpg", "cat/._a.jpg", "dog/deep/b.jpe", "dog/notes.txt", ".git/x.jpg")
    images = read_image_folder(photos)
    assert images.classes == ("cat", "dog")
    assert [path.name for path in images.paths] == ["a.JFIF", "b.jpe"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes in folders are Unix's")
def test_nobody_waits_for_a_pipe_that_is_named_like_a_photograph(photos: Path) -> None:
    touch(photos, "b.jpg")
    os.mkfifo(photos / "a.jpg")
    listing = list_images([photos])
    assert [path.name for path in listing.paths] == ["b.jpg"]
    (line,) = listing.failures
    assert str(photos / "a.jpg") in line
