"""tools/extract_proposals.py: folders and data sets, kills, shards, images that cannot be read."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data

from detector import extraction
from detector.data import DataConfig, DatasetKind, ImageError, open_dataset
from detector.extraction import cache_folder, dataset_proposals, extract
from proposals.merging import propose
from proposals.settings import ProposalConfig
from proposals.store import ProposalStore, StoreError, store_settings

ROOT = Path(__file__).parent.parent
SETTINGS = ("proposals.width=0", "proposals.min_width=8", "workers=2")
CONFIG = ProposalConfig(width=0, min_width=8)


@pytest.fixture
def photos(tmp_path):
    """A folder of 12 photographs, two of them in a sub-folder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    image = skimage.data.astronaut()
    for number in range(12):
        part = image[number * 10 : number * 10 + 90, number * 20 : number * 20 + 120]
        PIL.Image.fromarray(part).save(folder / ("more" if number > 9 else "") / f"{number:02}.png")
    return folder


def command(*arguments):
    return [sys.executable, str(ROOT / "tools/extract_proposals.py"), *map(str, arguments), *SETTINGS]


def run(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}
    )


def check(folder, paths):
    store = ProposalStore(folder, store_settings(CONFIG))
    assert sorted(store.names) == sorted(map(str, paths))
    for path in paths:
        stored = store.get(str(path), path.read_bytes())
        expected = propose(np.array(PIL.Image.open(path)), CONFIG)
        for array, wanted in zip(stored, expected, strict=True):
            assert np.array_equal(array, wanted)
        assert store.seconds(path.read_bytes()) > 0


def test_a_folder(photos, tmp_path):
    result = run(photos, "--output", tmp_path / "store")
    assert (result.returncode, result.stdout) == (0, f"{tmp_path / 'store'}\n"), result.stderr
    assert "10/10" in result.stderr  # the bar
    check(tmp_path / "store", sorted(photos.glob("*.png")))
    result = run(photos, "--output", tmp_path / "store", "--recursive")  # two more
    assert "12/12" in result.stderr
    check(tmp_path / "store", sorted(photos.rglob("*.png")))


def test_a_data_set_goes_where_training_looks(shapes, tmp_path, monkeypatch):
    data = ["data.kind=voc", f"data.root={shapes}", "data.split=train", "data.classes=[square,disc]"]
    result = run(*data, f"cache={tmp_path / 'cache'}")
    assert result.returncode == 0, result.stderr
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", ["square", "disc"]))
    folder = cache_folder({record.image_id: record.path for record in dataset.records}, CONFIG, tmp_path / "cache")
    assert result.stdout == f"{folder}\n"
    monkeypatch.setattr("detector.extraction._outcomes", lambda *_: pytest.fail("proposals were computed again"))
    store = dataset_proposals(dataset, CONFIG, tmp_path / "cache", 1)
    assert sorted(store.names) == [f"train{number}" for number in range(4)]


@pytest.mark.parametrize("moment", [1, 5, 9])
def test_killed_runs_go_on(photos, tmp_path, moment):
    """SIGKILL once so many images are done; its workers end with it."""
    store = tmp_path / "store"
    process = subprocess.Popen(command(photos, "--output", store), stderr=subprocess.DEVNULL, cwd=ROOT)
    journal = store / "journal.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.is_file() and journal.read_bytes().count(b"\n") > moment) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    children = children_of(process.pid)
    process.kill()
    process.wait()
    wait_for_end(children)
    result = run(photos, "--output", store)
    assert result.returncode == 0, result.stderr
    check(store, sorted(photos.glob("*.png")))
    names = json.loads((store / "manifest.json").read_text())["images"]["name"]
    assert len(names) == len(set(names)) == 10


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_stopped_runs_go_on(photos, tmp_path, sent):
    PIL.Image.fromarray(np.tile(skimage.data.astronaut(), (2, 2, 1))).save(photos / "last.png")  # a second's work
    store = tmp_path / "store"
    process = subprocess.Popen(
        command(photos, "--output", store), stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    journal = store / "journal.jsonl"
    while not (journal.is_file() and journal.read_bytes().count(b"\n") > 2) and process.poll() is None:
        time.sleep(0.002)
    children = children_of(process.pid)
    if sent is signal.SIGINT:
        os.killpg(process.pid, sent)  # as Ctrl-C does: to all of them
    else:
        process.send_signal(sent)
    _, errors = process.communicate()
    wait_for_end(children)
    assert "Traceback" not in errors
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("extract_proposals: stopped; ")
    assert run(photos, "--output", store).returncode == 0
    check(store, sorted(photos.glob("*.png")))


def children_of(pid):
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listing.read_text().split()] if listing.exists() else []


def wait_for_end(processes):
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in processes):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.02)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_shards_by_hand_and_by_rank(photos, tmp_path):
    store = tmp_path / "store"
    for arguments, environment in (
        (["--shard", "3/3"], {}),
        ([], {"RANK": "0", "WORLD_SIZE": "3"}),
        ([], {"RANK": "1", "WORLD_SIZE": "3"}),
    ):
        assert run(photos, "--output", store, *arguments, **environment).returncode == 0
    check(store, sorted(photos.glob("*.png")))
    assert sorted(path.name for path in store.iterdir()) == [f"shard-{number}-of-3" for number in (1, 2, 3)]


def test_shards_of_a_data_set_serve_training(shapes, tmp_path, monkeypatch):
    data = ["data.kind=voc", f"data.root={shapes}", "data.split=train", "data.classes=[square,disc]"]
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", ["square", "disc"]))
    monkeypatch.setattr("detector.extraction._outcomes", lambda *_: pytest.fail("proposals were computed again"))
    for number in (1, 2):
        assert run(*data, f"cache={tmp_path}", "--shard", f"{number}/2").returncode == 0
        if number == 1:
            with pytest.raises(StoreError, match="shard-2-of-2"):
                dataset_proposals(dataset, CONFIG, tmp_path, 1)
    store = dataset_proposals(dataset, CONFIG, tmp_path, 1)
    assert sorted(store.names) == [f"train{number}" for number in range(4)]


def test_a_changed_image_costs_itself(shapes, tmp_path, monkeypatch):
    """Of stores of the same settings in one cache, boxes are taken over by the content of the images."""
    shutil.copytree(shapes, tmp_path / "data")
    data = DataConfig(DatasetKind.voc, str(tmp_path / "data"), "train", ["square", "disc"])
    before = dataset_proposals(open_dataset(data), CONFIG, tmp_path / "cache", 1)
    computed = []
    outcomes = extraction._outcomes

    def counted(images, *rest):
        computed.extend(images)
        return outcomes(images, *rest)

    monkeypatch.setattr(extraction, "_outcomes", counted)
    changed = tmp_path / "data/JPEGImages/train2.png"
    PIL.Image.fromarray(skimage.data.astronaut()[:80, :96]).save(changed)
    after = dataset_proposals(open_dataset(data), CONFIG, tmp_path / "cache", 1)
    assert computed == ["train2"]
    for name in ("train0", "train1", "train3"):
        assert np.array_equal(after.named(name).boxes, before.named(name).boxes)
    expected = propose(np.array(PIL.Image.open(changed)), CONFIG)
    assert np.array_equal(after.get("train2", changed.read_bytes()).boxes, expected.boxes)
    assert after.seconds(changed.read_bytes()) > 0
    other = ProposalConfig(width=0, min_width=8, superpixel_scale=1.0)
    dataset_proposals(open_dataset(data), other, tmp_path / "cache", 1)
    assert len(computed) == 5  # other settings, other boxes


def test_images_that_cannot_be_read_are_named_and_the_others_kept(photos, tmp_path):
    (photos / "03.png").write_bytes(b"no image")
    (photos / "05.png").write_bytes((photos / "05.png").read_bytes()[:300])
    store = tmp_path / "store"
    result = run(photos, "--output", store)
    lines = [line for line in result.stderr.splitlines() if line.startswith("extract_proposals: ")]
    assert result.returncode == 1
    assert result.stdout == ""
    assert any(line.startswith(f"extract_proposals: {photos / '03.png'}: not an image") for line in lines)
    assert any(line.startswith(f"extract_proposals: {photos / '05.png'}: damaged or cut short") for line in lines)
    assert lines[-1] == (
        "extract_proposals: 2 of 10 images cannot be read, the others are stored; "
        "fix or remove those and run the same command again"
    )
    others = [path for path in sorted(photos.glob("*.png")) if path.stem not in ("03", "05")]
    check(store, others)  # which the two do not keep from being read
    (photos / "03.png").unlink()
    PIL.Image.fromarray(skimage.data.astronaut()[:60, :70]).save(photos / "05.png")
    assert run(photos, "--output", store).returncode == 0
    check(store, sorted(photos.glob("*.png")))


def test_a_data_set_with_a_damaged_image(shapes, tmp_path):
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", ["square", "disc"]))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"x")
    images = {"good": dataset.records[0].path, "bad": broken, "gone": tmp_path / "gone.png"}
    failures = extract(images, CONFIG, tmp_path / "store", workers=1)
    assert sorted(failures) == [
        f"{broken}: not an image in a known format, or damaged at its beginning or directory",
        f"{tmp_path / 'gone.png'}: no such file or directory",
    ]


def test_a_damaged_image_stops_training_and_evaluation(shapes, tmp_path, monkeypatch):
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(shapes), "train", ["square", "disc"]))
    monkeypatch.setattr("detector.extraction._outcomes", lambda images, *_: ((n, f"{n}: broken") for n in images))
    with pytest.raises(ImageError, match=r"^train0: broken \(and 3 more images\)$"):
        dataset_proposals(dataset, CONFIG, tmp_path, 1)


def test_other_settings_are_refused_by_name(photos, tmp_path):
    assert run(photos, "--output", tmp_path / "store").returncode == 0
    result = run(photos, "--output", tmp_path / "store", "proposals.mode=single")
    assert result.returncode == 1
    assert result.stderr == (
        f"extract_proposals: {tmp_path / 'store'}: made with mode = 'fast', now 'single'; "
        "name another folder, or delete this one to start anew\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 1, "extract_proposals: name image files or folders, or a data set as data.kind=... data.root=..., one"),
        (["nowhere", "--output", "x"], 1, "extract_proposals: no such file or folder: nowhere"),
        (["examples"], 2, "name the store of these images with --output DIR"),
        (["examples", "--output", "x", "--shard", "0/3"], 2, "expected I/N with I from 1 to N, not '0/3'"),
        (["examples", "--output", "x", "--shard", "2"], 2, "expected I/N with I from 1 to N, not '2'"),
        (["tests", "--output", "x"], 1, "extract_proposals: tests: no images in this folder"),
        (["examples", "--output", "x", "proposals.method=edges"], 1, "proposals.method must be one of native"),
    ],
)
def test_wrong_use(arguments, status, message):
    result = run(*arguments)
    assert result.returncode == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (ROOT / "x").exists()
