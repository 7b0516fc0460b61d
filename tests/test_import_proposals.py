"""tools/import_proposals.py: every format and layout against boxes that are known, its lines and its mistakes."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from detector.data import open_dataset
from detector.data.dataset import DataConfig, DatasetKind
from detector.data.ground_truth import Dataset
from detector.data.image import ImageError
from detector.evaluation.truth import Convention
from detector.importing.files import read_proposals
from detector.importing.given import Given, ProposalFileError
from detector.importing.into_store import Best, import_proposals
from detector.importing.layout import Wanted, find_layout
from proposals.own import own_boxes
from proposals.store import ProposalStore

Main = Callable[[list[str]], int]
Array = np.ndarray[Any, Any]
NAMES = ("val0", "val1", "val2")
WIDTH, HEIGHT = 96, 80
CONVENTIONS = [Convention(first, inclusive) for first in (0, 1) for inclusive in (0, 1)]


@pytest.fixture(scope="module")
def dataset(shapes: Path) -> Dataset:
    return open_dataset(DataConfig(DatasetKind.voc, str(shapes), "val"))


@pytest.fixture(scope="module")
def boxes() -> dict[str, Array]:
    """Whole-pixel boxes from 0 with the far edge exclusive, the whole image among them."""
    generator = np.random.default_rng(3)
    result = {}
    for name in NAMES:
        x = np.sort(generator.integers(0, WIDTH + 1, (40, 2)), axis=1)
        y = np.sort(generator.integers(0, HEIGHT + 1, (40, 2)), axis=1)
        some = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)
        some = some[(x[:, 1] > x[:, 0]) & (y[:, 1] > y[:, 0])]
        result[name] = np.concatenate([some, [[0, 0, WIDTH, HEIGHT]]]).astype(float)
    return result


def written(box: Array, columns: str, convention: Convention) -> list[float]:
    """Write a box by hand: each pixel that it begins with and ends with, then the order."""
    first_x, first_y, last_x, last_y = box[0], box[1], box[2] - 1, box[3] - 1  # pixels, from 0
    x1, y1 = first_x + convention.first, first_y + convention.first
    x2, y2 = (last + convention.first + (0 if convention.inclusive else 1) for last in (last_x, last_y))
    if columns == "xywh":
        return [x1, y1, box[2] - box[0], box[3] - box[1]]
    return [x1, y1, x2, y2] if columns == "xyxy" else [y1, x1, y2, x2]


def rows_of(found: Array, columns: str, convention: Convention) -> Array:
    return np.array([written(box, columns, convention) for box in found]).reshape(-1, 4)


def cell(parts: list[Any]) -> Array:
    result = np.empty((len(parts), 1), object)
    for place, part in enumerate(parts):
        result[place, 0] = part
    return result


def stored(folder: Path, dataset: Dataset) -> dict[str, Array]:
    store = ProposalStore(folder)
    return {one.image_id: np.asarray(store.get("x", one.path.read_bytes()).boxes) for one in dataset.records}


def same(folder: Path, dataset: Dataset, boxes: dict[str, Array]) -> None:
    found = stored(folder, dataset)
    assert found.keys() == boxes.keys()
    for name, part in boxes.items():
        np.testing.assert_array_equal(found[name], part.astype(np.float32))


def save_csv(path: Path, boxes: dict[str, Array], columns: str, convention: Convention, header: str = "") -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        if header:
            file.write(header + "\n")
        for name, part in boxes.items():
            writer.writerows([name, *row] for row in rows_of(part, columns, convention).tolist())


@pytest.mark.parametrize("columns", ["xyxy", "yxyx", "xywh"])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("kind", ["csv", "npz", "arrays"])
def test_layouts_are_found(
    columns: str, convention: Convention, kind: str, dataset: Dataset, boxes: dict[str, Array], tmp_path: Path
) -> None:
    path = tmp_path / ("b.csv" if kind == "csv" else "b.npz")
    if kind == "csv":
        save_csv(path, boxes, columns, convention)
    elif kind == "npz":
        parts = [rows_of(part, columns, convention) for part in boxes.values()]
        np.savez(path, names=np.array(NAMES), counts=[len(part) for part in parts], boxes=np.concatenate(parts))
    else:
        arrays = {name: rows_of(part, columns, convention) for name, part in boxes.items()}
        np.savez(path, **arrays)  # type: ignore[arg-type]
    line, *more = import_proposals(path, dataset, tmp_path / "store")
    assert not more
    assert "found by the images' borders" in line
    assert line.endswith("in the file's order")
    same(tmp_path / "store", dataset, boxes)


def test_r_cnns_mat(dataset: Dataset, boxes: dict[str, Array], tmp_path: Path) -> None:
    images = cell([*NAMES, "000007"])
    parts = cell([*(rows_of(part, "yxyx", Convention(1, 1)) for part in boxes.values()), np.zeros((0, 4))])
    scipy.io.savemat(tmp_path / "voc.mat", {"images": images, "boxes": parts}, do_compression=True)
    lines = import_proposals(tmp_path / "voc.mat", dataset, tmp_path / "store")
    assert "read as y1 x1 y2 x2 from pixel 1, far edge inclusive (of this format), in the file's order" in lines[0]
    assert lines[1].endswith("1 of 4 images are not in shapes val (first: 000007) and are left out")
    same(tmp_path / "store", dataset, boxes)


def test_detection_proposals_mats(dataset: Dataset, boxes: dict[str, Array], tmp_path: Path) -> None:
    """One image with runs for several numbers of boxes, and scores of which the best is the lowest."""
    folder = tmp_path / "edge boxes ü"
    for name, part in boxes.items():
        (folder / name[:4]).mkdir(parents=True, exist_ok=True)
        rows = rows_of(part, "xyxy", Convention(1, 1))
        scores = np.arange(len(part), 0.0, -1)[:, None]
        content: dict[str, Any] = {"boxes": rows, "scores": scores, "num_candidates": np.zeros((0, 0))}
        if name == "val1":
            content = {"boxes": cell([rows[:3], rows]), "scores": cell([scores[:3], scores]), "num_candidates": [3, 99]}
        scipy.io.savemat(folder / name[:4] / f"{name}.mat", content)
    line, *_ = import_proposals(folder, dataset, tmp_path / "high")
    assert "x1 y1 x2 y2 from pixel 1, far edge inclusive (of this format), highest score first" in line
    same(tmp_path / "high", dataset, boxes)
    import_proposals(folder, dataset, tmp_path / "low", best=Best.low)
    same(tmp_path / "low", dataset, {name: part[::-1] for name, part in boxes.items()})
    store = ProposalStore(tmp_path / "low")
    assert (np.diff(store.get("x", dataset.records[0].path.read_bytes()).scores) < 0).all()


def test_constant_scores_rank_nothing(dataset: Dataset, boxes: dict[str, Array], tmp_path: Path) -> None:
    for name, part in boxes.items():
        rows = rows_of(part, "xyxy", Convention(1, 1))
        scipy.io.savemat(tmp_path / f"{name}.mat", {"boxes": rows, "scores": -np.ones((0, 1))})
    assert read_proposals(tmp_path).scores is None


@pytest.mark.parametrize("scored", [True, False])
def test_coco(scored: bool, dataset: Dataset, boxes: dict[str, Array], tmp_path: Path) -> None:
    """Boxes of several images mixed; images named by file."""
    entries: list[dict[str, Any]] = []
    for name, part in boxes.items():
        for place, row in enumerate(rows_of(part, "xywh", Convention(0, 0)).tolist()):
            entries.append({"image_id": f"JPEGImages/{name}.png", "bbox": row, "category_id": 1})
            if scored:
                entries[-1]["score"] = -float(place)
    if scored:
        np.random.default_rng(0).shuffle(entries)  # type: ignore[arg-type]
    (tmp_path / "p.json").write_text(json.dumps(entries))
    line, *more = import_proposals(tmp_path / "p.json", dataset, tmp_path / "store")
    assert "read as x y width height from pixel 0 (of this format)" in line
    assert not more
    same(tmp_path / "store", dataset, boxes)


def test_csv_header_in_any_order(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(
        "Score,xmax,xmin,ymax,ymin,image\n0.1,96,0,80,0,val0.png\n0.9,20.5,10,40,30,val0.png\n0.5,96,50,80,0,val2\n"
    )
    lines = import_proposals(tmp_path / "b.csv", dataset, tmp_path / "store")
    assert lines[1].endswith("1 of 3 images have no proposals (first: val1); nothing covers their objects")
    found = stored(tmp_path / "store", dataset)
    assert found["val0"].tolist() == [[10, 30, 20.5, 40], [0, 0, 96, 80]]
    assert found["val1"].shape == (0, 4)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_csv_of_another_separator(separator: str, dataset: Dataset, tmp_path: Path) -> None:
    text = "image,x1,y1,x2,y2\nval0,0,0,96,80\nval2,50,0,96,80\n".replace(",", separator)
    (tmp_path / "b.csv").write_text(text)
    import_proposals(tmp_path / "b.csv", dataset, tmp_path / "store")
    assert stored(tmp_path / "store", dataset)["val2"].tolist() == [[50, 0, 96, 80]]


def near_objects(columns: str, seed: int) -> tuple[Given, Array, list[Array]]:
    """60 square images, an object in each, and boxes around it that fit in both orders and touch no border."""
    generator = np.random.default_rng(seed)
    middle, side = generator.uniform(42, 60, (60, 2)), generator.uniform(8, 19, (60, 2))
    objects = np.concatenate([middle - side / 2, middle + side / 2], axis=1)
    boxes = np.repeat(objects, 5, axis=0) + generator.normal(0, 1, (300, 4))
    boxes = rows_of(boxes, columns, Convention(0, 0))
    given = Given(Path("b.csv"), tuple(range(60)), np.arange(0, 301, 5), boxes, None)
    return given, np.full((60, 2), 75.0), list(objects[:, None])


@pytest.mark.parametrize("columns", ["xyxy", "yxyx"])
@pytest.mark.parametrize("seed", range(3))
def test_objects_decide_where_borders_do_not(columns: str, seed: int) -> None:
    given, sizes, objects = near_objects(columns, seed)
    layout, how = find_layout(given, sizes, objects, Wanted(None, 0, 0))
    assert layout == (columns, Convention(0, 0))
    assert how == "order found by the objects, pixels as you state"
    with pytest.raises(ProposalFileError, match=r"give --first-pixel and --far-edge$"):
        find_layout(given, sizes, objects, Wanted())
    with pytest.raises(ProposalFileError, match=r"give --far-edge$"):
        find_layout(given, sizes, objects, Wanted(None, 0))
    nothing = [np.zeros((0, 4))] * 60
    with pytest.raises(ProposalFileError, match=r"fit as x1 y1 x2 y2 and y1 x1 y2 x2; give --columns xyxy or yxyx$"):
        find_layout(given, sizes, nothing, Wanted(None, 0, 0))
    other = {"xyxy": "yxyx", "yxyx": "xyxy"}[columns]
    stated = replace(given, columns=other)
    with pytest.raises(ProposalFileError, match=f"clearly better .* give --columns {columns}, or"):
        find_layout(stated, sizes, objects, Wanted(None, 0, 0))
    assert find_layout(stated, sizes, nothing, Wanted(None, 0, 0))[0].columns == other


def test_a_wrong_order_that_the_user_states_is_an_error(
    dataset: Dataset, boxes: dict[str, Array], tmp_path: Path
) -> None:
    save_csv(tmp_path / "b.csv", boxes, "yxyx", Convention(0, 0))
    with pytest.raises(ProposalFileError, match=r"read as x1 y1 x2 y2, .* give --columns yxyx$"):
        import_proposals(tmp_path / "b.csv", dataset, tmp_path / "store", Wanted("xyxy"))


def test_other_images_are_suspected(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("val0,900,700,1000,960\nval1,600,10,800,900\n")
    (tmp_path / "b.json").write_text('[{"image_id": "val0", "bbox": [900, 700, 100, 50]}]')
    for name in ("b.csv", "b.json"):
        with pytest.raises(ProposalFileError, match=r"100% of the boxes leave .* in their own size, then"):
            import_proposals(tmp_path / name, dataset, tmp_path / "store")


def test_boxes_that_a_method_does_not_cut(dataset: Dataset, tmp_path: Path) -> None:
    """Of a known format they are cut here; of others the order must be stated."""
    found = {name: np.array([[0.0, 0, WIDTH, HEIGHT], [4, 5, 60, 70], [-9, 3, 50, 60]]) for name in NAMES}
    entries = [
        {"image_id": name, "bbox": row}
        for name, part in found.items()
        for row in rows_of(part, "xywh", Convention(0, 0)).tolist()
    ]
    (tmp_path / "b.json").write_text(json.dumps(entries))
    lines = import_proposals(tmp_path / "b.json", dataset, tmp_path / "store")
    assert lines[1].endswith("3 boxes reach outside their image and are cut at its border")
    save_csv(tmp_path / "b.csv", found, "xyxy", Convention(0, 0))
    with pytest.raises(ProposalFileError, match="33% of the boxes leave"):
        import_proposals(tmp_path / "b.csv", dataset, tmp_path / "other")
    import_proposals(tmp_path / "b.csv", dataset, tmp_path / "other", Wanted("xyxy"))
    same(tmp_path / "other", dataset, {name: np.maximum(part, 0) for name, part in found.items()})


def test_a_format_that_is_not_kept_is_an_error(dataset: Dataset, boxes: dict[str, Array], tmp_path: Path) -> None:
    parts = cell([rows_of(part, "xyxy", Convention(1, 1)) for part in boxes.values()])
    scipy.io.savemat(tmp_path / "x.mat", {"images": cell(list(NAMES)), "boxes": parts})
    with pytest.raises(ProposalFileError, match=r"as x1 y1 x2 y2; give --columns xyxy$"):
        import_proposals(tmp_path / "x.mat", dataset, tmp_path / "store")
    import_proposals(tmp_path / "x.mat", dataset, tmp_path / "store", Wanted("xyxy"))
    same(tmp_path / "store", dataset, boxes)
    parts = cell([rows_of(part, "yxyx", Convention(0, 1)) for part in boxes.values()])
    scipy.io.savemat(tmp_path / "x.mat", {"images": cell(list(NAMES)), "boxes": parts})
    with pytest.raises(
        ProposalFileError, match=r"look like .* from pixel 0, far edge inclusive; give --first-pixel 0 "
    ):
        import_proposals(tmp_path / "x.mat", dataset, tmp_path / "other")


def test_images_that_cannot_be_read(dataset: Dataset, boxes: dict[str, Array], tmp_path: Path) -> None:
    save_csv(tmp_path / "b.csv", boxes, "xyxy", Convention(0, 0))
    gone = [replace(one, path=tmp_path / f"{one.image_id}.png") for one in dataset.records[:2]]
    for count, more in ((1, ""), (2, ", nor can 1 more")):
        part = replace(dataset, records=(*gone[:count], *dataset.records[count:]))
        with pytest.raises(ImageError, match=f"val0.png: cannot be read{more}; a store knows"):
            import_proposals(tmp_path / "b.csv", part, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_sizes_that_no_annotation_states_are_read(dataset: Dataset, boxes: dict[str, Array], tmp_path: Path) -> None:
    save_csv(tmp_path / "b.csv", boxes, "yxyx", Convention(1, 1))
    part = replace(dataset, records=tuple(replace(one, width=0, height=0) for one in dataset.records))
    import_proposals(tmp_path / "b.csv", part, tmp_path / "store")
    same(tmp_path / "store", dataset, boxes)


def test_wrong_usage(tool: Callable[[str], Main], capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--output", "x"], "name one file"),
        (["a.csv", "b.csv", "--output", "x"], "name one file"),
        (["a.csv"], "name the store to write"),
        (["a.csv", "--output", "x", "--columns", "xywh", "--far-edge", "inclusive"], "--far-edge is for corners"),
    ):
        with pytest.raises(SystemExit, match="2"):
            tool("import_proposals")(words)
        assert message in capsys.readouterr().err


def test_boxes_are_cut_and_empty_ones_dropped(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("image,x1,y1,x2,y2\nval0,-1,0,96,80\nval0,5,5,5,9\nval0,0,0,96,80.5\n")
    wanted = Wanted("xyxy", 0, 0)
    lines = import_proposals(tmp_path / "b.csv", dataset, tmp_path / "store", wanted)
    assert any("2 boxes reach outside their image and are cut" in line for line in lines)
    assert any("1 boxes have no area" in line for line in lines)
    assert stored(tmp_path / "store", dataset)["val0"].tolist() == [[0, 0, 96, 80]] * 2


WRONG: list[tuple[str, bytes, str]] = [
    ("b.txt", b"", "proposals are read from .mat, .npz, .json, .csv files"),
    ("b.pkl", b"\x80\x04.", "convert it in the program that wrote it"),
    ("b.csv", b"", "is empty"),
    ("b.csv", b"\xff\xfe", "not a CSV file in UTF-8"),
    ("b.csv", b"a,b,c\nx,1,2\n", "line 1: columns a, b, c; needed are image, x1"),
    ("b.csv", b"val0,1,2,3\n", "line 1: image, four numbers and perhaps a score, not 4 values"),
    ("b.csv", b"val0,1,2,3,4\nval0,1,2,x,4\n", "line 2: image, four numbers"),
    ("b.csv", b"val0,1,2,nan,4\n", "boxes of image 'val0' must be finite"),
    ("b.csv", b"val0,0.1,0.2,0.3,1\n", "no number of a box is above 1"),
    ("b.csv", b"val9,1,2,3,4\n", "none of its 1 images is known: unknown image 'val9'"),
    ("b.csv", b"val0,1,2,3,4\nval0.png,1,2,3,4\n", "'val0' and 'val0.png' both name image 'val0'"),
    ("b.json", b"{}", "not a list of COCO results"),
    ("b.json", b"[]", "holds no images"),
    ("b.json", b'[{"image_id": 1, "bbox": [1, 2, 3]}]', "not a list of COCO results"),
    ("b.json", b'[{"image_id":1,"bbox":[1,2,3,4],"score":1},{"image_id":1,"bbox":[1,2,3,4]}]', "1 of 2 boxes have"),
    ("b.npz", b"nothing", "not a .npz file, or damaged"),
    ("b.mat", b"nothing", "not a MATLAB file, or damaged"),
    ("b.mat", b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n", "save it again with -v7"),
    ("", b"", "no .mat files in this folder"),
]


@pytest.mark.parametrize(("name", "content", "message"), WRONG)
def test_mistakes_are_one_line(name: str, content: bytes, message: str, dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "in" / name
    (tmp_path / "in").mkdir()
    if name:
        path.write_bytes(content)
    with pytest.raises(ProposalFileError) as caught:
        import_proposals(path, dataset, tmp_path / "store")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"boxes": np.zeros((2, 4))}, "lacks 'names'"),
        ({"names": ["a"], "counts": [3], "boxes": np.zeros((2, 4))}, "1 counts that sum to 3, 2 boxes"),
        ({"names": ["a"], "counts": [2], "boxes": np.zeros((2, 4)), "scores": [1.0]}, "2 boxes, 1 scores"),
        ({"names": ["a", "a"], "counts": [1, 1], "boxes": np.zeros((2, 4))}, "image 'a' occurs twice"),
        ({"val0": np.zeros((2, 3))}, r"boxes of image 'val0' must be \[N, 4\], not \[2, 3\]"),
        ({"val0": np.array([{}])}, "pickled objects"),
    ],
)
def test_npz_mistakes(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(ProposalFileError, match=message):
        read_proposals(tmp_path / "b.npz")


class Instances:
    """Stands for mmengine's InstanceData."""

    def __init__(self, bboxes: Array, scores: Array) -> None:
        self.bboxes, self.scores = bboxes, scores


@pytest.mark.parametrize("program", ["detectron2", "mmdetection"])
def test_pickles_converted_as_described(
    program: str, dataset: Dataset, boxes: dict[str, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of proposals/README.md, on files as the two programs write them."""
    monkeypatch.chdir(tmp_path)
    ranks = {name: -np.arange(len(part), dtype=np.float32) for name, part in boxes.items()}
    content: dict[str, Any] = {f"data/x/{name}.png": Instances(part, ranks[name]) for name, part in boxes.items()}
    if program == "detectron2":
        content = {"ids": list(boxes), "boxes": list(boxes.values()), "objectness_logits": list(ranks.values())}
        content["bbox_mode"] = 0
    Path("proposals.pkl").write_bytes(pickle.dumps(content))
    page = (Path(__file__).parent.parent / "proposals/README.md").read_text()
    code = page.partition(f"For {program}")[2].split("```py\n")[1].split("```")[0]
    exec(code, {})
    line, *_ = import_proposals(Path("proposals.npz"), dataset, tmp_path / "store", Wanted("xyxy", 0, 0))
    assert line.endswith("highest score first")
    same(tmp_path / "store", dataset, boxes)


def test_a_mat_of_something_else(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "b.mat", {"images": [1], "x": 2})
    with pytest.raises(ProposalFileError, match="has no variable 'boxes'; its variables: images, x"):
        read_proposals(tmp_path / "b.mat")


def test_the_command_and_its_store(
    shapes: Path,
    boxes: dict[str, Array],
    tmp_path: Path,
    tool: Callable[[str], Main],
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_csv(tmp_path / "b.csv", boxes, "xyxy", Convention(1, 1))
    data = ["data.kind=voc", f"data.root={shapes}", "data.split=val"]
    words = [str(tmp_path / "b.csv"), *data, "--output", str(tmp_path / "store")]
    for _ in range(2):  # again, nothing is left to do
        assert tool("import_proposals")(words) == 0
        captured = capsys.readouterr()
        assert captured.out == f"{tmp_path / 'store'}\n"
        assert "from pixel 1, far edge inclusive (found by the images' borders)" in captured.err
    assert tool("import_proposals")([*words, "--far-edge", "exclusive", "--first-pixel", "1"]) == 1
    assert "name another folder" in capsys.readouterr().err
    assert tool("eval_proposals")([*data, f"stores.theirs={tmp_path / 'store'}", "settings={}"]) == 0
    assert "theirs" in capsys.readouterr().out
    content = (shapes / "JPEGImages/val0.png").read_bytes()
    found, _ = own_boxes("theirs", str(tmp_path / "store"), np.zeros((HEIGHT, WIDTH, 3), np.uint8), content)
    np.testing.assert_array_equal(found, boxes["val0"].astype(np.float32))
    assert (
        tool("import_proposals")([str(tmp_path / "b.csv"), *data, "--output", str(tmp_path / "x"), "--best", "low"])
        == 1
    )
    assert "has no scores" in capsys.readouterr().err
