"""Several sources of proposals together: what is joined, what is left out, which sources there can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from re import escape
from typing import Any

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray

from proposals.merging import merge, propose
from proposals.own import identity, own_boxes
from proposals.result import MULTIBOX, SELECTIVE_SEARCH, Found, Proposals, source_names
from proposals.settings import MultiBoxSettings, ProposalConfig
from proposals.store import StoreError, digest
from proposals.store_writer import StoreWriter

Floats32 = NDArray[np.float32]
Part = tuple[int, Floats32, Floats32]

BLANK = np.zeros((80, 100, 3), np.uint8)


def photograph() -> NDArray[np.uint8]:
    """[100, 160, 3]."""
    return np.ascontiguousarray(skimage.data.astronaut()[60:260:2, 100:420:2])


def random_boxes(count: int, seed: int, width: float = 100, height: float = 80) -> Floats32:
    generator = np.random.default_rng(seed)
    sides = generator.uniform(0.1, 0.6, (count, 2))
    corners = generator.uniform(0, 1 - sides)
    return (np.concatenate([corners, corners + sides], axis=1) * ([width, height] * 2)).astype(np.float32)


def scores_of(count: int) -> Floats32:
    return np.linspace(1, 0.1, count, dtype=np.float32)


def part(number: int, boxes: Sequence[Sequence[float]] | Floats32) -> Part:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return number, array, scores_of(len(array))


def nothing() -> Floats32:
    return np.zeros((0, 4), np.float32)


# ---- merging


def slow_iou(first: Sequence[float], second: Sequence[float]) -> float:
    width = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (first, second)]
    return width * height / (sum(areas) - width * height)


def slow_merge(parts: Sequence[Part], near: float, limit: int | None) -> list[tuple[list[float], float, int]]:
    """(box, score, source) one after the other."""
    kept: list[tuple[list[float], float, int]] = []
    for number, boxes, scores in parts:
        earlier = [box for box, _, _ in kept]
        for box, score in zip(boxes.tolist(), scores.tolist(), strict=True):
            if all(slow_iou(box, other) <= near for other in earlier):
                kept.append((box, score, number))
    return kept[:limit]


@pytest.mark.parametrize("near", [0.05, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("limit", [None, 1, 25, 60, 1000])
def test_merges_what_the_slow_version_does(near: float, limit: int | None) -> None:
    """Of three sources two are shifted copies of the first."""
    generator = np.random.default_rng(0)
    first = random_boxes(30, seed=1)
    parts = [part(4, first)]
    for number in (0, 2):
        shifted = (first[::-1] + generator.uniform(-2, 2, first.shape)).astype(np.float32)
        parts.append(part(number, np.concatenate([shifted, random_boxes(10, seed=number)])))
    result = merge(parts, near=near, limit=limit)
    expected = slow_merge(parts, near, limit)
    assert result.boxes.tolist() == [box for box, _, _ in expected]
    assert result.scores.tolist() == [score for _, score, _ in expected]
    assert result.sources.tolist() == [source for _, _, source in expected]
    assert result.boxes.dtype == result.scores.dtype == np.float32
    assert result.sources.dtype == np.uint8


def test_near_is_strictly_above() -> None:
    """The later box is half of the earlier one, or a quarter."""
    earlier = part(1, [[0, 0, 20, 20]])
    later = part(0, [[0, 0, 20, 10], [0, 0, 10, 10], [0, 0, 20, 20]])
    for near, expected in ((0.5, [0, 1]), (0.499, [1]), (0.25, [1]), (0.249, []), (0.999, [0, 1]), (1.0, [0, 1, 2])):
        result = merge([earlier, later], near=near, limit=None)
        assert result.boxes[1:].tolist() == later[1][expected].tolist()
        assert result.scores[1:].tolist() == later[2][expected].tolist()


def test_within_a_source_all_stay() -> None:
    twins = [[0, 0, 30, 30]] * 3
    result = merge([part(1, twins), part(2, [*twins, [50, 50, 70, 70], [50, 50, 70, 70]])], near=0.95, limit=None)
    assert result.sources.tolist() == [1, 1, 1, 2, 2]


def test_a_box_is_compared_with_every_earlier_source() -> None:
    box = [[10, 10, 40, 40]]
    result = merge([part(3, box), part(1, [[60, 60, 70, 70]]), part(0, box)], near=0.95, limit=None)
    assert result.sources.tolist() == [3, 1]


def test_a_box_that_was_left_out_leaves_none_out() -> None:
    """The third is like the second, which is like the first; the first and the third are not alike."""
    chain = [[[0, 0, 100, 10]], [[10, 0, 110, 10]], [[20, 0, 120, 10]]]
    overlaps = [slow_iou(chain[0][0], chain[number][0]) for number in (1, 2)]
    near = sum(overlaps) / 2
    result = merge([part(number, boxes) for number, boxes in enumerate(chain)], near=near, limit=None)
    assert result.sources.tolist() == [0, 2]


def test_the_limit_cuts_the_tail() -> None:
    parts = [part(1, random_boxes(5, seed=0)), part(0, random_boxes(7, seed=1))]
    whole = merge(parts, near=1.0, limit=None)
    assert whole.sources.tolist() == [1] * 5 + [0] * 7
    for limit in (1, 4, 5, 6, 12, 13):
        cut = merge(parts, near=1.0, limit=limit)
        for name in Proposals._fields:
            assert np.array_equal(getattr(cut, name), getattr(whole, name)[:limit])


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], []),
        ([part(1, [])], []),
        ([part(1, []), part(0, [])], []),
        ([part(1, []), part(0, [[0, 0, 9, 9]])], [0]),
        ([part(1, [[0, 0, 9, 9]]), part(0, [])], [1]),
        ([part(1, [[0, 0, 9, 9]]), part(2, []), part(0, [[0, 0, 9, 9]])], [1]),
    ],
)
def test_sources_may_find_nothing(parts: list[Part], expected: list[int]) -> None:
    result = merge(parts, near=0.95, limit=None)
    assert result.sources.tolist() == expected
    assert result.boxes.shape == (len(expected), 4)
    assert result.boxes.dtype == result.scores.dtype == np.float32
    assert result.sources.dtype == np.uint8


# ---- proposing

WEIGHTS = MultiBoxSettings(weights="some")


def fake(boxes: Floats32) -> Callable[[NDArray[np.uint8]], Found]:
    """A network that proposes these, whatever it sees."""
    return lambda image: (boxes, scores_of(len(boxes)))


def searched(image: NDArray[np.uint8]) -> Proposals:
    found = propose(image, ProposalConfig())
    assert len(found.boxes) > 50
    return found


def test_multibox_comes_first_and_stays_whole() -> None:
    """Its own near-twins too; selective search loses what is like it, and nothing else."""
    image = photograph()
    alone = searched(image)
    copies = alone.boxes[[0, 20, 40]] + np.float32(0.1)
    boxes = np.concatenate([random_boxes(20, seed=0, width=160, height=100), copies, copies])
    result = propose(image, ProposalConfig(multibox=WEIGHTS), multibox=fake(boxes))
    assert np.array_equal(result.boxes[:26], boxes)
    assert np.array_equal(result.scores[:26], scores_of(26))
    names = source_names(ProposalConfig(multibox=WEIGHTS))
    assert [names[number] for number in result.sources] == [MULTIBOX] * 26 + [SELECTIVE_SEARCH] * (
        len(result.boxes) - 26
    )
    new = [all(slow_iou(box, other) <= 0.95 for other in boxes.tolist()) for box in alone.boxes.tolist()]
    assert sum(new) < len(new)
    assert np.array_equal(result.boxes[26:], alone.boxes[new])
    assert np.array_equal(result.scores[26:], alone.scores[new])


def test_near_1_keeps_everything() -> None:
    image = photograph()
    alone = searched(image)
    result = propose(image, ProposalConfig(multibox=WEIGHTS, near=1.0), multibox=fake(alone.boxes[:9]))
    assert np.array_equal(result.boxes, np.concatenate([alone.boxes[:9], alone.boxes]))


def test_the_cap_cuts_selective_search() -> None:
    image = photograph()
    boxes = random_boxes(20, seed=0, width=160, height=100)
    whole = propose(image, ProposalConfig(multibox=WEIGHTS), multibox=fake(boxes))
    for cap in (30, 21, 20, 15):
        result = propose(image, ProposalConfig(multibox=WEIGHTS, max_boxes=cap), multibox=fake(boxes))
        assert len(result.boxes) == cap
        for name in Proposals._fields:
            assert np.array_equal(getattr(result, name), getattr(whole, name)[:cap])


def test_sources_are_what_the_config_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each on or off; a network that was passed, but is not wanted, is not asked."""
    image = photograph()
    where = module_of(tmp_path, monkeypatch, "merge_switches")
    asked = []

    def multibox(image: NDArray[np.uint8]) -> Found:
        asked.append(image)
        return np.array([[1, 1, 33, 33]], np.float32), np.ones(1, np.float32)

    for search, network, own in product((True, False), repeat=3):
        if not (search or network or own):
            continue
        config = ProposalConfig(
            selective_search=search,
            multibox=WEIGHTS if network else MultiBoxSettings(),
            own={"mine": where} if own else {},
        )
        asked.clear()
        result = propose(image, config, multibox=multibox)
        names = [source_names(config)[number] for number in result.sources]
        assert list(dict.fromkeys(names)) == [MULTIBOX] * network + ["mine"] * own + [SELECTIVE_SEARCH] * search
        assert len(asked) == network
        assert all(np.array_equal(seen, image) for seen in asked)


def test_the_network_gets_rgb() -> None:
    grey = photograph()[:, :, 0]
    seen = []

    def multibox(image: NDArray[np.uint8]) -> Found:
        seen.append(image)
        return nothing(), np.zeros(0, np.float32)

    propose(grey, ProposalConfig(selective_search=False, multibox=WEIGHTS), multibox=multibox)
    assert np.array_equal(seen[0], np.repeat(grey[:, :, None], 3, axis=2))
    assert seen[0].dtype == np.uint8


def test_refuses_weights_without_a_network() -> None:
    with pytest.raises(ValueError, match=r"^proposals\.multibox\.weights "):
        propose(photograph(), ProposalConfig(multibox=WEIGHTS))


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (32, 32)])
def test_images_in_which_nothing_is_found(shape: tuple[int, int]) -> None:
    config = ProposalConfig(selective_search=False, multibox=WEIGHTS)
    result = propose(np.zeros((*shape, 3), np.uint8), config, multibox=fake(nothing()))
    assert result.boxes.shape == (0, 4)
    assert result.scores.shape == result.sources.shape == (0,)


# ---- a function of one's own

CODE = """
import numpy as np

def mine(image):
    height, width, _ = image.shape
    return np.array([[0, 0, width / 2, height / 2], [3, 4, 25, 36]]), np.array([0.5, 0.25])
"""


def module_of(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str = CODE) -> str:
    """Write an importable module; returns what a config says of it."""
    (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    return f"{name}:mine"


def test_a_function_takes_part_between_multibox_and_selective_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = photograph()
    where = module_of(tmp_path, monkeypatch, "merge_takes_part")
    config = ProposalConfig(multibox=WEIGHTS, own={"first": where, "second": where}, near=1.0)
    boxes = random_boxes(3, seed=0)
    result = propose(image, config, multibox=fake(boxes))
    assert source_names(config) == (SELECTIVE_SEARCH, MULTIBOX, "first", "second")
    assert result.sources.tolist()[:8] == [1, 1, 1, 2, 2, 3, 3, 0]
    assert set(result.sources.tolist()[7:]) == {0}
    expected = [[0, 0, 80, 50], [3, 4, 25, 36]]
    assert result.boxes[3:7].tolist() == expected * 2
    assert result.scores[3:7].tolist() == [0.5, 0.25] * 2


def test_a_function_that_multibox_agrees_with_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = module_of(tmp_path, monkeypatch, "merge_agrees")
    config = ProposalConfig(selective_search=False, multibox=WEIGHTS, own={"mine": where})
    result = propose(photograph(), config, multibox=fake(np.array([[3, 4, 25, 36.5]], np.float32)))
    assert result.boxes.tolist() == [[3, 4, 25, 36.5], [0, 0, 80, 50]]
    assert result.sources.tolist() == [1, 2]


@pytest.mark.parametrize("name", [MULTIBOX, SELECTIVE_SEARCH])
def test_refuses_the_name_of_another_source(name: str) -> None:
    """It would stand in its place."""
    with pytest.raises(ValueError, match=r"^proposals\.own") as caught:
        ProposalConfig(own={name: "package.module:function"})
    assert name in str(caught.value)


def test_boxes_are_cut_at_the_border(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an image of 100 × 80 px; those without area, or outside, go with their scores."""
    code = """
def mine(image):
    boxes = [[-5, -5, 50, 40], [90, 70, 300, 300], [100, 0, 120, 40], [10, 10, 10, 40], [30, 30, 20, 40], [1, 2, 3, 4]]
    return boxes, [6, 5, 4, 3, 2, 1]
"""
    where = module_of(tmp_path, monkeypatch, "merge_border", code)
    boxes, scores = own_boxes("mine", where, BLANK, None)
    assert boxes.tolist() == [[0, 0, 50, 40], [90, 70, 100, 80], [1, 2, 3, 4]]
    assert scores.tolist() == [6, 5, 1]
    assert boxes.dtype == scores.dtype == np.float32


def test_a_function_may_find_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import numpy as np\ndef mine(image): return np.zeros((0, 4)), np.zeros(0)\n"
    where = module_of(tmp_path, monkeypatch, "merge_nothing", code)
    boxes, scores = own_boxes("mine", where, BLANK, None)
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


@pytest.mark.parametrize(
    ("name", "result", "message"),
    [
        ("flat", "[1, 2, 3, 4], [1]", "[4] and [1]"),
        ("narrow", "[[1, 2, 3]], [1]", "[1, 3] and [1]"),
        ("wide", "[[1, 2, 3, 4, 5]], [1]", "[1, 5] and [1]"),
        ("uneven", "[[1, 2, 3, 4]], [1, 2]", "[1, 4] and [2]"),
        ("unscored", "[[1, 2, 3, 4]], []", "[1, 4] and [0]"),
        ("square", "[[1, 2, 3, 4]], [[1]]", "[1, 4] and [1, 1]"),
        ("nan", "[[1, 2, 3, float('nan')]], [1]", "not finite"),
        ("inf", "[[1, 2, 3, float('inf')]], [1]", "not finite"),
        ("nan_score", "[[1, 2, 3, 4]], [float('nan')]", "not finite"),
    ],
)
def test_refuses_what_is_not_boxes_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, result: str, message: str
) -> None:
    where = module_of(tmp_path, monkeypatch, f"merge_refused_{name}", f"def mine(image): return {result}\n")
    with pytest.raises(ValueError, match=f"^{escape(f'proposals.own.box ({where}) ')}.*{escape(message)}$"):
        own_boxes("box", where, BLANK, None)


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("none", "None"),
        ("number", "3"),
        ("three", "[[1, 2, 3, 4]], [1], [0]"),
        ("boxes_alone", "__import__('numpy').zeros((5, 4))"),
        ("words", "[['a', 'b', 'c', 'd']], [1]"),
        ("ragged", "[[1, 2, 3, 4], [1, 2]], [1, 2]"),
    ],
)
def test_refuses_what_is_no_pair_of_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, result: str
) -> None:
    where = module_of(tmp_path, monkeypatch, f"merge_no_pair_{name}", f"def mine(image): return {result}\n")
    with pytest.raises(ValueError, match=rf"^{escape(f'proposals.own.box ({where}) ')}.*\[N, 4\]"):
        own_boxes("box", where, BLANK, None)


@pytest.mark.parametrize("ask", [lambda name, where: own_boxes(name, where, BLANK, None), identity])
def test_refuses_no_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str, str], Any]) -> None:
    monkeypatch.chdir(tmp_path)
    where = "runs/absent"
    with pytest.raises(ValueError, match=rf"^proposals\.own\.box: .*{where}.*package\.module:function"):
        ask("box", where)
    (tmp_path / "file.npy").touch()
    with pytest.raises(ValueError, match=r"^proposals\.own\.box: .*file\.npy"):
        ask("box", "file.npy")

    module_of(tmp_path, monkeypatch, "merge_no_function")
    for where in ("merge_absent:mine", "merge_no_function:yours", "merge_no_function:", "merge_no_function.deep:mine"):
        with pytest.raises(ValueError, match=f"^{escape(f'proposals.own.box: {where} ')}.+"):
            ask("box", where)


@pytest.mark.parametrize("where", [":mine", ".merge_relative:mine", "..:mine"])
def test_refuses_what_is_no_modules_name(where: str) -> None:
    with pytest.raises(ValueError, match=f"^{escape(f'proposals.own.box: {where} ')}.+"):
        own_boxes("box", where, BLANK, None)


def test_an_error_of_the_function_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither swallowed nor taken for a wrong result: its author has to see where it comes from."""
    where = module_of(tmp_path, monkeypatch, "merge_error", "def mine(image): raise KeyError('weights')\n")
    with pytest.raises(KeyError, match=r"^'weights'$"):
        propose(BLANK, ProposalConfig(own={"mine": where}))


def test_refuses_what_cannot_be_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = module_of(tmp_path, monkeypatch, "merge_not_callable", "mine = 3\n")
    with pytest.raises(ValueError, match=r"^proposals\.own\.box"):
        own_boxes("box", where, BLANK, None)


# ---- a store of one's own


def store_of(folder: Path, contents: dict[bytes, Floats32], method: str = "mine", *, finish: bool = True) -> str:
    """Write a store of boxes by the content of their image files; returns what a config says of it."""
    names = [f"image {number}" for number in range(len(contents))]
    with StoreWriter(folder, {"method": method}, names, sources=("my own",)) as writer:
        for name, (content, boxes) in zip(names, contents.items(), strict=True):
            found = Proposals(boxes, scores_of(len(boxes)), np.zeros(len(boxes), np.uint8))
            writer.append(name, digest(content), (100, 80), found)
        if finish:
            writer.finish()
    return str(folder)


def test_a_store_takes_part_by_the_images_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the number of the config, not of the store."""
    stored = {b"one": random_boxes(4, seed=0), b"two": random_boxes(6, seed=1), b"three": nothing()}
    folder = store_of(tmp_path / "boxes", stored)
    function = module_of(tmp_path, monkeypatch, "merge_beside_store")
    config = ProposalConfig(selective_search=False, own={"function": function, "store": folder}, near=1.0)
    for content, boxes in stored.items():
        result = propose(BLANK, config, content=content)
        assert result.sources.tolist() == [2, 2] + [3] * len(boxes)
        assert np.array_equal(result.boxes[2:], boxes)
        assert np.array_equal(result.scores[2:], scores_of(len(boxes)))
    found = propose(BLANK, config, content=b"one")
    found.boxes[:] = 0  # the caller's, not the store's
    assert np.array_equal(propose(BLANK, config, content=b"one").boxes[2:], stored[b"one"])


def test_stored_boxes_are_cut_at_the_border(tmp_path: Path) -> None:
    boxes = np.array([[-9, 3, 50, 99], [200, 200, 300, 300]], np.float32)
    found, scores = own_boxes("box", store_of(tmp_path / "boxes", {b"one": boxes}), BLANK, b"one")
    assert found.tolist() == [[0, 3, 50, 80]]
    assert scores.tolist() == [1]


def test_refuses_an_image_that_comes_from_no_file(tmp_path: Path) -> None:
    folder = store_of(tmp_path / "boxes", {b"one": random_boxes(4, seed=0)})
    with pytest.raises(ValueError, match=r"^proposals\.own\.box .*store"):
        propose(BLANK, ProposalConfig(own={"box": folder}))


def test_refuses_an_image_that_the_store_does_not_know(tmp_path: Path) -> None:
    folder = store_of(tmp_path / "boxes", {b"one": random_boxes(4, seed=0)})
    with pytest.raises(StoreError, match=rf"^{escape(folder)}: .*proposals\.own\.box"):
        propose(BLANK, ProposalConfig(own={"box": folder}), content=b"two")


@pytest.mark.parametrize(
    "ask", [lambda name, where: own_boxes(name, where, BLANK, b"one"), identity], ids=["boxes", "identity"]
)
def test_refuses_a_folder_that_is_no_finished_store(tmp_path: Path, ask: Callable[[str, str], Any]) -> None:
    unfinished = store_of(tmp_path / "boxes", {b"one": random_boxes(4, seed=0)}, finish=False)
    (tmp_path / "empty").mkdir()
    for folder in (unfinished, str(tmp_path / "empty")):
        with pytest.raises(StoreError, match=f"^{escape(folder)}: "):
            ask("box", folder)


# ---- what the boxes depend on


def test_identity_is_that_of_the_modules_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = module_of(tmp_path, monkeypatch, "merge_identity")
    same = module_of(tmp_path, monkeypatch, "merge_identity_twin")
    other = module_of(tmp_path, monkeypatch, "merge_identity_other", CODE.replace("0.25", "0.125"))
    before = identity("mine", where)
    assert before == identity("yours", where) == identity("mine", same)
    assert before != identity("mine", other)
    module_of(tmp_path, monkeypatch, "merge_identity", f"{CODE}# changed\n")
    assert identity("mine", where) != before
    module_of(tmp_path, monkeypatch, "merge_identity")
    assert identity("mine", where) == before


def test_identity_of_a_function_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that the config names hands on another's: either's content decides the boxes."""
    module_of(tmp_path, monkeypatch, "merge_deep")
    where = module_of(tmp_path, monkeypatch, "merge_facade", "from merge_deep import mine\n")
    before = identity("mine", where)
    module_of(tmp_path, monkeypatch, "merge_deep", f"{CODE}# changed\n")
    assert identity("mine", where) != before


def test_identity_of_a_function_with_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What functools.partial makes says that it comes from functools; the settings are in the module named."""
    code = """
from functools import partial
def boxes(side, image):
    return [[0, 0, side, side]], [1]
mine = partial(boxes, 30)
"""
    where = module_of(tmp_path, monkeypatch, "merge_partial", code)
    boxes, _ = own_boxes("mine", where, BLANK, None)
    assert boxes.tolist() == [[0, 0, 30, 30]]
    before = identity("mine", where)
    module_of(tmp_path, monkeypatch, "merge_partial", code.replace("30", "40"))
    assert identity("mine", where) != before


def test_identity_is_that_of_the_stores_content(tmp_path: Path) -> None:
    """Which images it knows, how their boxes were made, the boxes."""
    boxes = random_boxes(4, seed=0)
    before = identity("mine", store_of(tmp_path / "first", {b"one": boxes}))
    assert identity("mine", store_of(tmp_path / "twin", {b"one": boxes})) == before
    assert identity("mine", store_of(tmp_path / "other image", {b"two": boxes})) != before
    assert identity("mine", store_of(tmp_path / "more images", {b"one": boxes, b"two": boxes})) != before


@pytest.mark.parametrize("change", ["boxes", "number of boxes", "settings"])
def test_identity_is_that_of_the_stores_boxes(tmp_path: Path, change: str) -> None:
    """For the same images: else boxes of an older run are taken from the cache."""
    boxes = random_boxes(4, seed=0)
    before = identity("mine", store_of(tmp_path / "first", {b"one": boxes}))
    changed = {"boxes": random_boxes(4, seed=1), "number of boxes": boxes[:3], "settings": boxes}[change]
    method = "another" if change == "settings" else "mine"
    assert identity("mine", store_of(tmp_path / "second", {b"one": changed}, method)) != before


# ---- settings


@pytest.mark.parametrize(
    ("name", "value"), [("limit", 0), ("limit", -5), ("max_iou", 0.0), ("max_iou", 1.01), ("max_iou", math.nan)]
)
def test_refuses_settings_of_multibox(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^proposals\.multibox\.{name} .*{value}$"):
        MultiBoxSettings(**{name: value})  # type: ignore[arg-type]


def test_refuses_settings() -> None:
    for value in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=rf"^proposals\.near .*{value}$"):
            ProposalConfig(near=value)
    with pytest.raises(ValueError, match=r"^proposals .*selective_search, multibox\.weights .*own$"):
        ProposalConfig(selective_search=False)


def test_one_source_is_enough() -> None:
    for settings in ({}, {"own": {"mine": "module:function"}}, {"multibox": WEIGHTS}):
        for search in (True, False) if settings else (True,):
            ProposalConfig(selective_search=search, **settings)


def test_defaults_are_selective_search_alone_and_200_of_multibox() -> None:
    """§8: "200 region proposals coming from multi-box"; without weights there are none."""
    config = ProposalConfig()
    assert config.selective_search
    assert config.multibox == MultiBoxSettings(weights="", limit=200, max_iou=0.8, crops=0)
    assert config.own == {}
    assert source_names(config) == (SELECTIVE_SEARCH, MULTIBOX)
