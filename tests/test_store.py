"""The store of proposals: what is written is read, a kill loses and doubles nothing, what does not fit is refused."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from proposals import store_writer as store_module
from proposals.result import Proposals
from proposals.settings import ProposalConfig
from proposals.store import ProposalStore, StoreError, digest, store_settings
from proposals.store_writer import StoreWriter, shard_of

NAMES = tuple(f"image {number}.jpg" for number in range(9))
SETTINGS = {"method": "mine", "size": 2.0, "list": [1, 2]}


def content(name):
    return f"the bytes of {name}".encode()


def found(name):
    """Proposals that differ from image to image; one image has none."""
    generator = np.random.default_rng(len(name) + sum(map(ord, name)))
    count = 0 if name.startswith("image 4") else int(generator.integers(1, 30))
    boxes = generator.random((count, 4), dtype=np.float32) * 100
    return Proposals(boxes, generator.random(count, dtype=np.float32), generator.integers(0, 2, count).astype(np.uint8))


def fill(folder, names=NAMES, *, stop=None, finish=True, settings=SETTINGS, shard=(1, 1)):
    with StoreWriter(folder, settings, names, shard=shard, sources=("one", "two")) as writer:
        for name in writer.todo[:stop]:
            writer.append(name, digest(content(name)), (640, 480), found(name), seconds=0.25)
        if finish:
            writer.finish()
    return folder


def check(store, names=NAMES):
    assert len(store) == len(names)
    assert sorted(store.names) == sorted(names)
    assert store.sources == ("one", "two")
    for name in names:
        stored, expected = store.get(name, content(name)), found(name)
        for array, wanted in zip(stored, expected, strict=True):
            assert array.dtype == wanted.dtype
            assert np.array_equal(array, wanted)
        assert store.seconds(content(name)) == 0.25


def test_a_written_store_reads_back(tmp_path):
    folder = fill(tmp_path / "deep" / "store")
    check(ProposalStore(folder))
    check(ProposalStore(folder, SETTINGS))
    boxes = ProposalStore(folder).get(NAMES[0], content(NAMES[0])).boxes
    assert isinstance(boxes, np.memmap)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["settings"] == SETTINGS
    assert manifest["images"]["size"] == [[640, 480]] * 9
    assert np.load(folder / "boxes.npy").shape == (manifest["boxes"], 4)  # plain NumPy files
    assert np.load(folder / "offsets.npy")[-1] == manifest["boxes"] == sum(len(found(name).boxes) for name in NAMES)


def test_a_store_serves_renamed_images(tmp_path):
    store = ProposalStore(fill(tmp_path))
    assert np.array_equal(store.get("elsewhere/x.jpg", content(NAMES[2])).boxes, found(NAMES[2]).boxes)


def test_stores_without_boxes_or_images(tmp_path):
    store = ProposalStore(fill(tmp_path / "a", ["image 4.jpg"]))
    assert store.get("image 4.jpg", content("image 4.jpg")).boxes.shape == (0, 4)
    assert len(ProposalStore(fill(tmp_path / "b", []))) == 0


@pytest.mark.parametrize("stop", range(len(NAMES) + 1))
def test_a_stopped_store_goes_on(tmp_path, stop):
    fill(tmp_path, stop=stop, finish=False)
    if stop < len(NAMES):
        with pytest.raises(StoreError, match="unfinished"):
            ProposalStore(tmp_path)
    with StoreWriter(tmp_path, SETTINGS, NAMES, sources=("one", "two")) as writer:
        assert writer.done == set(NAMES[:stop])
        assert writer.todo == list(NAMES[stop:])
    check(ProposalStore(fill(tmp_path)))


def test_a_kill_at_any_byte_loses_and_doubles_nothing(tmp_path):
    """An image's rows are in the files in part, or whole but for the journal's line, or that line is torn."""
    before = fill(tmp_path / "before", stop=3, finish=False)
    after = fill(tmp_path / "after", stop=4, finish=False)
    order = ("boxes.npy", "scores.npy", "sources.npy", "journal.jsonl")  # as they are written
    sizes = {name: ((before / name).stat().st_size, (after / name).stat().st_size) for name in order}
    for torn in range(len(order)):
        low, high = sizes[order[torn]]
        for cut in sorted({low, low + 1, (low + high) // 2, high - 1, high}):
            folder = tmp_path / "killed"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for number, name in enumerate(order):
                size = sizes[name][1] if number < torn else cut if number == torn else sizes[name][0]
                (folder / name).write_bytes((after / name).read_bytes()[:size])
            check(ProposalStore(fill(folder)))


def test_a_kill_before_anything_was_written(tmp_path):
    (tmp_path / "journal.jsonl").write_bytes(b'{"store": 1, "sett')
    check(ProposalStore(fill(tmp_path)))


def test_a_killed_process_does_not_block(tmp_path):
    code = (
        "import os, pathlib, sys; sys.path.insert(0, 'tests')\n"
        "from test_store import *\n"
        f"writer = StoreWriter(pathlib.Path({str(tmp_path)!r}), SETTINGS, NAMES, sources=('one', 'two'))\n"
        "name = writer.todo[0]\n"
        "writer.append(name, digest(content(name)), (640, 480), found(name), 0.25)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == -9
    check(ProposalStore(fill(tmp_path)))


def test_images_may_be_added(tmp_path):
    fill(tmp_path, NAMES[:5])
    assert len(ProposalStore(tmp_path)) == 5
    fill(tmp_path, stop=2, finish=False)
    with pytest.raises(StoreError, match="unfinished"):
        ProposalStore(tmp_path)
    check(ProposalStore(fill(tmp_path)))


def test_a_finished_store_is_left_alone(tmp_path):
    fill(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    fill(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# ---- shards


def test_shards_share_the_images_out(tmp_path):
    for number in (2, 1, 3):
        fill(tmp_path, shard=(number, 3))
    check(ProposalStore(tmp_path, SETTINGS))
    parts = [json.loads((tmp_path / f"shard-{n}-of-3/manifest.json").read_text())["images"]["name"] for n in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(NAMES)
    assert all(parts)


def test_a_shard_does_not_depend_on_the_list():
    shards = [shard_of(f"{number:06}.jpg", 8) for number in range(8000)]
    counts = np.bincount(shards, minlength=9)
    assert counts[0] == 0
    assert (counts[1:] > 800).all()


def test_an_absent_shard_is_named(tmp_path):
    for number in (1, 3):
        fill(tmp_path, shard=(number, 3))
    with pytest.raises(StoreError, match="shard-2-of-3"):
        ProposalStore(tmp_path)
    fill(tmp_path, shard=(2, 3), stop=1, finish=False)
    with pytest.raises(StoreError, match=r"shard-2-of-3: .*unfinished"):
        ProposalStore(tmp_path)
    fill(tmp_path, shard=(2, 3))
    fill(tmp_path, shard=(4, 5))
    with pytest.raises(StoreError, match="another split"):
        ProposalStore(tmp_path)


def test_shards_of_different_lists_or_settings_do_not_mix(tmp_path):
    fill(tmp_path / "a", shard=(1, 2))
    fill(tmp_path / "a", NAMES[:5], shard=(2, 2))
    with pytest.raises(StoreError, match="different lists"):
        ProposalStore(tmp_path / "a")
    fill(tmp_path / "b", shard=(1, 2))
    fill(tmp_path / "b", shard=(2, 2), settings={**SETTINGS, "size": 3.0})
    with pytest.raises(StoreError, match=r"size = 3\.0, now 2\.0"):
        ProposalStore(tmp_path / "b")


@pytest.mark.parametrize("shard", [(0, 3), (4, 3), (1, 0)])
def test_shards_are_counted_from_1(tmp_path, shard):
    with pytest.raises(StoreError, match=f"shard {shard[0]} of {shard[1]}"):
        StoreWriter(tmp_path, SETTINGS, NAMES, shard=shard)


# ---- what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**SETTINGS, "size": 1.0}, r"size = 2\.0, now 1\.0"),
        ({"method": "mine", "size": 2.0}, r"list = \[1, 2\], "),
        ({**SETTINGS, "more": "x"}, "more = .* now 'x'"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, settings, message):
    fill(tmp_path, stop=2, finish=False)
    with pytest.raises(StoreError, match=message):
        fill(tmp_path, settings=settings)
    fill(tmp_path)
    with pytest.raises(StoreError, match=message):
        ProposalStore(tmp_path, settings)
    with pytest.raises(StoreError, match=message):
        fill(tmp_path, settings=settings)
    check(ProposalStore(tmp_path, SETTINGS))


def test_every_setting_of_proposals_counts():
    config = ProposalConfig()
    assert store_settings(config).keys() == {"code", "files", *config.RETIRED, *asdict(config)}
    assert store_settings(config, {"multibox": "a"}) != store_settings(config, {"multibox": "b"})


def test_a_changed_image_is_refused_by_name(tmp_path):
    store = ProposalStore(fill(tmp_path))
    with pytest.raises(StoreError, match=r"image 3\.jpg"):
        store.get("image 3.jpg", b"other bytes")
    with pytest.raises(StoreError, match=r"new\.jpg"):
        store.get("new.jpg", b"new bytes")


def test_an_image_that_left_the_list_is_named(tmp_path):
    fill(tmp_path)
    with pytest.raises(StoreError, match=r"image 0\.jpg"):
        fill(tmp_path, NAMES[1:])
    check(ProposalStore(tmp_path))


def test_a_store_in_use_is_refused(tmp_path):
    with (
        StoreWriter(tmp_path, SETTINGS, NAMES),
        pytest.raises(StoreError, match="another process"),
    ):
        StoreWriter(tmp_path, SETTINGS, NAMES)
    StoreWriter(tmp_path, SETTINGS, NAMES).close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "boxes.npy").unlink(), r"damaged .*boxes\.npy"),
        (lambda folder: (folder / "scores.npy").write_bytes(b"x"), "damaged"),
        (lambda folder: np.save(folder / "sources.npy", np.zeros(3, np.uint8)), r"damaged \(sources.npy is \[3\]\)"),
        (lambda folder: np.save(folder / "offsets.npy", np.zeros(3)), r"damaged \(offsets.npy is \[3\]\)"),
        (lambda folder: np.save(folder / "offsets.npy", np.arange(10)), r"damaged \(offsets.npy"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest"),
        (lambda folder: (folder / "manifest.json").write_text('{"store": 1}'), "manifest"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_damage_is_named(tmp_path, change, message):
    folder = fill(tmp_path / "store")
    change(folder)
    with pytest.raises(StoreError, match=message):
        ProposalStore(folder)


def test_a_damaged_journal_or_array_is_not_gone_on_with(tmp_path):
    fill(tmp_path, stop=3, finish=False)
    journal = (tmp_path / "journal.jsonl").read_bytes()
    lines = journal.split(b"\n")
    (tmp_path / "journal.jsonl").write_bytes(b"\n".join([lines[0], b"{broken", *lines[2:]]))
    with pytest.raises(StoreError, match=r"journal\.jsonl: damaged"):
        fill(tmp_path)
    (tmp_path / "journal.jsonl").write_bytes(journal)
    (tmp_path / "boxes.npy").write_bytes((tmp_path / "boxes.npy").read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"boxes\.npy: shorter"):
        fill(tmp_path)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match=r"taken: .*File exists"):
        StoreWriter(tmp_path / "taken", SETTINGS, NAMES)


def test_an_image_is_listed_and_added_once(tmp_path):
    with pytest.raises(StoreError, match=r"image b .*twice"):
        StoreWriter(tmp_path, SETTINGS, ["a", "b", "c", "b"])
    with StoreWriter(tmp_path, SETTINGS, ["a"]) as writer:
        writer.append("a", digest(b""), (1, 1), found("a"))
        with pytest.raises(ValueError, match=r"image a .*already"):
            writer.append("a", digest(b""), (1, 1), found("a"))


@pytest.mark.parametrize(
    ("proposals", "message"),
    [
        (Proposals(np.zeros((2, 4)), np.zeros(3), np.zeros(2)), r"scores of a must be \[2\], not \[3\]"),
        (Proposals(np.zeros((2, 5)), np.zeros(2), np.zeros(2)), r"boxes of a must be \[2, 4\], not \[2, 5\]"),
        (Proposals(np.full((1, 4), np.nan), np.zeros(1), np.zeros(1)), "boxes of a are not finite"),
        (Proposals(np.zeros((1, 4)), np.full(1, np.inf), np.zeros(1)), "scores of a are not finite"),
    ],
)
def test_arrays_must_fit(tmp_path, proposals, message):
    with StoreWriter(tmp_path, SETTINGS, ["a"]) as writer, pytest.raises(ValueError, match=message):
        writer.append("a", digest(b""), (1, 1), proposals)
    with StoreWriter(tmp_path, SETTINGS, ["a"]) as writer:  # nothing of it stays
        writer.append("a", digest(b"a"), (1, 1), found("a"))
        writer.finish()
    assert np.array_equal(ProposalStore(tmp_path).get("a", b"a").boxes, found("a").boxes)


GOOD = Proposals(np.full((2, 4), 5, np.float32), np.full(2, 0.5, np.float32), np.zeros(2, np.uint8))
BAD = {
    "a score too many": GOOD._replace(scores=np.zeros(3)),
    "a source too few": GOOD._replace(sources=np.zeros(1)),
    "boxes not a number": GOOD._replace(boxes=np.full((2, 4), np.nan)),
    "boxes beyond float32": GOOD._replace(boxes=np.full((2, 4), 1e300)),
    "an infinite score": GOOD._replace(scores=np.array([0.5, -np.inf])),
    "a source that is none": GOOD._replace(sources=np.array([0, 2])),
    "a source that would wrap": GOOD._replace(sources=np.array([0, 256])),
    "a negative source": GOOD._replace(sources=np.array([0, -1])),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_an_image_that_is_rejected_shifts_no_other(tmp_path, bad):
    with StoreWriter(tmp_path, SETTINGS, NAMES, sources=("one", "two")) as writer:
        for number, name in enumerate(writer.todo):
            if number == 3:
                with pytest.raises(ValueError, match=name):
                    writer.append(name, digest(content(name)), (640, 480), bad)
                assert name not in writer.done
            writer.append(name, digest(content(name)), (640, 480), found(name), seconds=0.25)
        writer.finish()
    check(ProposalStore(tmp_path))


@pytest.mark.parametrize("key", ["boxes", "scores", "sources", "journal"])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "stopped"]
)
def test_a_write_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch, key, error):
    """A full disk, or Ctrl-C, in the middle of an image's rows or of its line."""

    def broken(file, data):
        if file.name == str(tmp_path / (f"{key}.npy" if key != "journal" else "journal.jsonl")):
            write(file, data[: len(data) // 2])
            raise error
        return write(file, data)

    write = store_module._write
    with StoreWriter(tmp_path, SETTINGS, NAMES, sources=("one", "two")) as writer:
        for number, name in enumerate(writer.todo):
            if number == 2:
                with monkeypatch.context() as patch:
                    patch.setattr(store_module, "_write", broken)
                    with pytest.raises((StoreError, KeyboardInterrupt)):
                        writer.append(name, digest(content(name)), (640, 480), found(name))
            writer.append(name, digest(content(name)), (640, 480), found(name), seconds=0.25)
        writer.finish()
    check(ProposalStore(tmp_path))


def test_many_read_a_finished_store_while_it_is_locked(tmp_path):
    fill(tmp_path)
    with StoreWriter(tmp_path, SETTINGS, NAMES, sources=("one", "two")):
        check(ProposalStore(tmp_path))
