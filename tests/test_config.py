"""Settings: what loads, what is refused and in which words."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import ClassVar

import pytest

from detector import config
from detector.config import MISSING, ConfigError, config_to_dict, find_config, load_config, save_config
from detector.words import list_override


class Mode(Enum):
    fast = "fast"
    quality = "quality"


@dataclass(frozen=True)
class Proposals:
    superpixel_scale: float = 2.0
    limit: int = 2000
    mode: Mode = Mode.fast
    sigmas: tuple[float, ...] = (0.8,)

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit must be at least 1, not {self.limit}")


@dataclass(frozen=True)
class Member:
    weights: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class Settings:
    proposals: Proposals = field(default_factory=Proposals)
    second: Proposals | None = None
    name: str = "paper"
    classes: list[str] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    thresholds: dict[str, float] = field(default_factory=dict)
    flip: bool = False


@dataclass(frozen=True)
class Grouped:
    classes: list[str] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Incomplete:
    data: str = MISSING
    seed: int = 0


def write(folder: Path, text: str, name: str = "detect.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def message(schema: type, path: str | Path | None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(schema, path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_defaults_and_empty_file(tmp_path: Path) -> None:
    assert load_config(Settings, None) == Settings()
    assert load_config(Settings, write(tmp_path, "# nothing differs\n")) == Settings()


def test_file_then_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "proposals:\n  limit: 500\n  mode: quality\nname: mine\nclasses: [cat, dog]\n")
    loaded = load_config(
        Settings,
        path,
        [
            "proposals.limit=300",
            "proposals.superpixel_scale=1e-3",
            "second.limit=7",
            "members=[{weights: a/b, seed: 3}]",
        ],
    )
    assert loaded == Settings(
        proposals=Proposals(superpixel_scale=0.001, limit=300, mode=Mode.quality),
        second=Proposals(limit=7),
        name="mine",
        classes=["cat", "dog"],
        members=[Member(Path("a/b"), 3)],
    )


def test_an_empty_mapping_on_the_command_line_clears_a_files(tmp_path: Path) -> None:
    path = write(tmp_path, "thresholds: {cat: 0.5}\nproposals: {limit: 500}\n")
    loaded = load_config(Settings, path, ["thresholds={}", "proposals={}"])
    assert loaded == Settings(proposals=Proposals(limit=500))


def test_tuple_stays_a_tuple(tmp_path: Path) -> None:
    loaded = load_config(Settings, write(tmp_path, "proposals:\n  sigmas: [0.5, 1]\n"))
    assert loaded.proposals.sigmas == (0.5, 1.0)


@pytest.mark.parametrize("name", ["no", "1e3", "007", "null", "a: b", "", "12:30", "naïve", "#1"])
def test_saved_config_loads_equal(tmp_path: Path, name: str) -> None:
    original = Settings(
        proposals=Proposals(superpixel_scale=1e-5, mode=Mode.quality, sigmas=(0.1, 1 / 3)),
        second=Proposals(limit=1),
        name=name,
        classes=["yes", "person"],
        members=[Member(Path("runs/a.safetensors"), 1), Member()],
        thresholds={"cat": 0.5, "on": 1e20},
        flip=True,
    )
    save_config(original, tmp_path / "runs" / "config.yaml")
    assert load_config(Settings, tmp_path / "runs" / "config.yaml") == original


def test_config_to_dict_is_plain() -> None:
    plain = config_to_dict(Settings(members=[Member(Path("a"))], second=Proposals()))
    assert plain["proposals"] == {"superpixel_scale": 2.0, "limit": 2000, "mode": "fast", "sigmas": [0.8]}
    assert plain["members"] == [{"weights": "a", "seed": 0}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "proposals:\n  superpixel_size: 2\n",
            "[proposals] has no key 'superpixel_size'. Did you mean 'superpixel_scale'?",
        ),
        ("second:\n  limits: 2\n", "[second] has no key 'limits'. Did you mean 'limit'?"),
        (
            "zzz: 1\n",
            "has no key 'zzz'. Known: proposals, second, name, classes, members, thresholds, flip",
        ),
        ("hello\n", "has no key 'hello'. Known: proposals, second, name, classes, members, thresholds, flip"),
        ("proposals:\n  limit: many\n", "[proposals] limit must be int, not 'many'"),
        ("proposals:\n  limit: 0.5\n", "[proposals] limit must be int, not 0.5"),
        ("proposals:\n  limit: true\n", "[proposals] limit must be int, not True"),
        ("proposals:\n  mode: slow\n", "[proposals] mode must be one of fast, quality, not 'slow'"),
        ("proposals:\n  sigmas: [a]\n", "[proposals] sigmas must be tuple[float, ...], not ['a']"),
        (
            "proposals: 3\n",
            "proposals must be a section with keys superpixel_scale, limit, mode, sigmas, not 3",
        ),
        (
            "members: [{weight: a}]\n",
            "members must be a list, each a section with keys weights, seed, not [{'weight': 'a'}]",
        ),
        ("thresholds: {cat: high}\n", "[thresholds] cat must be float, not 'high'"),
        ("proposals:\n  limit: 0\n", "limit must be at least 1, not 0"),
        ("name: a\nflip: true\nname: b\n", "line 3, column 1: found duplicate key name"),
        ("name: [a\nflip: true\n", "line 2, column 5: did not find expected ',' or ']'"),
        ("- a\n- b\n", "expected 'key: value' lines, found a list"),
        ("5\n", "expected 'key: value' lines, found '5'"),
        ("extends: 3\n", "extends must be one file name, not 3"),
    ],
)
def test_refused_file(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    assert message(Settings, path) == f"{path}: {expected}"


def test_refused_bytes(tmp_path: Path) -> None:
    path = tmp_path / "detect.yaml"
    path.write_bytes(b"\xff\xfe\xfa")
    assert message(Settings, path).startswith(f"{path}: no YAML of 'key: value' lines: 'utf-8' codec")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "proposals.superpixel_size=3",
            "no key 'proposals.superpixel_size'. Did you mean 'proposals.superpixel_scale'?",
        ),
        ("nme=3", "no key 'nme'. Did you mean 'name'?"),
        ("proposals.limit=many", "proposals.limit must be int, not 'many'"),
        ("proposals.limit=", "proposals.limit must be int, not None"),
        ("proposals.limit.x=3", "proposals.limit must be int, not {'x': 3}"),
        ("proposals.limit", "expected key=value, not 'proposals.limit'"),
        ("=3", "expected key=value, not '=3'"),
        ("classes={a: b}", "classes must be list[str], not {'a': 'b'}"),
        ("classes.0=a", "classes must be list[str], not {'0': 'a'}"),
        ("classes={}", "classes must be list[str], not {}"),
        ("proposals..limit=3", "expected key=value, not 'proposals..limit=3'"),
        ("classes=[a", "'classes=[a': the value is malformed YAML: did not find expected ',' or ']'"),
        ("proposals.limit=-1", "limit must be at least 1, not -1"),
        ("name=\udcff", "'name=\\udcff': the value is no text in UTF-8"),
    ],
)
def test_refused_override(override: str, expected: str) -> None:
    assert message(Settings, None, override) == f"overrides: {expected}"


@dataclass(frozen=True)
class Newer:
    RETIRED: ClassVar[dict[str, object]] = {"ranking": "large-first"}
    seed: int = 0


def test_a_retired_setting_loads_with_its_only_value(tmp_path: Path) -> None:
    assert load_config(Newer, write(tmp_path, "ranking: large-first\nseed: 3\n")) == Newer(3)
    path = write(tmp_path, "ranking: small-first\n")
    assert message(Newer, path) == f"{path}: has no key 'ranking'. Known: seed"


def test_missing_value(tmp_path: Path) -> None:
    path = write(tmp_path, "seed: 3\n")
    assert message(Incomplete, path) == f"{path}: no value for 'data'. Give it as data=..."
    assert message(Incomplete, None) == "defaults: no value for 'data'. Give it as data=..."
    assert load_config(Incomplete, path, ["data=voc"]) == Incomplete("voc", 3)


def test_extends_is_merged_below(tmp_path: Path) -> None:
    write(tmp_path, "name: base\nproposals: {limit: 10, superpixel_scale: 3}\n", "base.yaml")
    write(tmp_path, "extends: base.yaml\nname: middle\n", "middle.yaml")
    (tmp_path / "sub").mkdir()
    top = write(tmp_path / "sub", "extends: ../middle.yaml\nproposals: {limit: 20}\n", "top.yaml")
    assert load_config(Settings, top) == Settings(name="middle", proposals=Proposals(limit=20, superpixel_scale=3.0))


def test_extends_names_the_file_at_fault(tmp_path: Path) -> None:
    base = write(tmp_path, "nome: base\n", "base.yaml")
    top = write(tmp_path, "extends: base.yaml\n", "top.yaml")
    assert message(Settings, top) == f"{base}: has no key 'nome'. Did you mean 'name'?"
    lost = write(tmp_path, "extends: bass.yaml\n", "lost.yaml")
    assert message(Settings, lost).startswith(f"{lost}: extends bass.yaml: no such config.")


def test_extends_in_a_circle(tmp_path: Path) -> None:
    first = write(tmp_path, "extends: second.yaml\n", "first.yaml")
    write(tmp_path, "extends: first.yaml\n", "second.yaml")
    assert (
        message(Settings, first)
        == f"{first}: 'extends' goes round in a circle: first.yaml -> second.yaml -> first.yaml"
    )


def test_a_section_extends_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the section states wins, wherever its `extends` stands; that file may extend another."""
    write(tmp_path, "limit: 10\nsuperpixel_scale: 3\n", "few.yaml")
    write(tmp_path, "extends: few.yaml\nlimit: 12\n", "some.yaml")
    (tmp_path / "sub").mkdir()
    path = write(tmp_path / "sub", "proposals:\n  sigmas: [1.0]\n  extends: ../some.yaml\n")
    expected = Proposals(limit=12, superpixel_scale=3.0, sigmas=(1.0,))
    assert load_config(Settings, path) == Settings(proposals=expected)
    monkeypatch.chdir(tmp_path)
    found = load_config(Settings, None, ["proposals.extends=some.yaml", "proposals.limit=13"])
    assert found == Settings(proposals=replace(expected, limit=13, sigmas=(0.8,)))
    assert load_config(Settings, path, ["proposals.extends=few.yaml"]).proposals == replace(expected, limit=10)
    assert message(Settings, None, "proposals.extends=fewer.yaml").startswith(
        "overrides: proposals.extends fewer.yaml: no such config. (presets: "
    )
    assert message(Settings, None, "proposals.extends=3") == (
        "overrides: proposals.extends must be one file name, not 3"
    )
    circle = write(tmp_path, "proposals: {extends: circle.yaml}\n", "circle.yaml")
    assert message(Settings, circle) == f"{circle}: 'extends' goes round in a circle: circle.yaml -> circle.yaml"


def test_missing_file_lists_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "", "detect.yaml")
    write(tmp_path, "", "voc.yaml")
    path = tmp_path / "detekt.yaml"
    assert message(Settings, path) == (
        f"{path}: no such config. Did you mean 'detect.yaml'? (in {tmp_path}: detect.yaml, voc.yaml)"
    )
    nowhere = tmp_path / "nowhere" / "a.yaml"
    assert message(Settings, nowhere) == f"{nowhere}: no such config. (there is no folder {tmp_path / 'nowhere'})"
    (tmp_path / "empty").mkdir()
    assert message(Settings, tmp_path / "empty" / "a.yaml").endswith(f"({tmp_path / 'empty'} holds no .yaml file)")
    assert message(Settings, tmp_path).startswith(f"{tmp_path}: a folder, not a file.")


def test_preset_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    presets = tmp_path / "configs"
    presets.mkdir()
    preset = write(presets, "name: shipped\n", "paper.yaml")
    write(presets, "", "detect.yaml")
    monkeypatch.setattr(config, "PRESETS", (tmp_path / "absent", presets))
    monkeypatch.chdir(tmp_path)
    assert find_config("paper") == find_config("paper.yaml") == preset.relative_to(tmp_path)
    assert load_config(Settings, "paper").name == "shipped"
    assert message(Settings, "papers") == "papers: no such config. Did you mean 'paper'? (presets: detect, paper)"
    write(presets, "nome: x\n", "detect.yaml")
    assert message(Settings, "detect") == "configs/detect.yaml: has no key 'nome'. Did you mean 'name'?"
    write(tmp_path, "name: local\n", "paper.yaml")
    assert load_config(Settings, "paper.yaml").name == "local"  # an existing path goes before a preset


WORDS = (
    *("no", "yes", "on", "off", "True", "null", "~", "010", "1e3", "12:30", "1_000", "0x1F", "0o17", "1.0", ".5"),
    *("-3", "+1", ".inf", ".nan", "2024-01-02", "="),
)


@pytest.mark.parametrize("word", WORDS)
def test_a_text_is_the_word_as_it_is_written(tmp_path: Path, word: str) -> None:
    """In lists, as a key and as a value; in a file, on the command line, and saved again."""
    path = write(
        tmp_path, f"classes:\n- {word}\n- cat\ngroups: {{small: [cat, {word}]}}\nthresholds: {{? {word} : 1}}\n"
    )
    for loaded in (
        load_config(Grouped, path),
        load_config(
            Grouped, None, [f"classes=[{word}, cat]", f"groups.small=[cat,{word}]", f"thresholds={{? {word} : 1}}"]
        ),
    ):
        assert loaded.classes == [word, "cat"]
        assert loaded.groups == {"small": ["cat", word]}
        assert loaded.thresholds == {word: 1.0}
        save_config(loaded, tmp_path / "saved.yaml")
        assert load_config(Grouped, tmp_path / "saved.yaml") == loaded
    if word not in ("null", "~"):  # could be meant as none
        assert load_config(Settings, None, [f"name={word}"]).name == word
        assert load_config(Settings, write(tmp_path, f"name: {word}\n")).name == word
        assert load_config(Settings, None, [f"members=[{{weights: {word}}}]"]).members[0].weights == Path(word)


@pytest.mark.parametrize(
    "names",
    [["cat", "x: y"], ["null", "a, b"], ["it's", 'say "no"'], ["#1", "&a", "*b", "[c]"], ["é", "e\u0301 x"], ["~"]],
)
def test_the_hint_of_a_list_works_when_it_is_pasted(names: list[str]) -> None:
    (word,) = shlex.split(list_override("classes", names))
    assert load_config(Settings, None, [word]).classes == names


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("classes=[010,x: y]", Settings(classes=["010", "x: y"])),
        ("classes=[x: 010]", Settings(classes=["x: 010"])),
        ("name=x: y", Settings(name="x: y")),
        ("name=null", Settings(name="null")),
    ],
)
def test_texts_without_quotes_are_rejected_with_a_working_spelling(override: str, meant: Settings) -> None:
    said = message(Settings, None, override)
    (word,) = shlex.split(said.partition("in quotes: ")[2])
    assert load_config(Settings, None, [word]) == meant


def test_lists_and_mappings_in_place_of_texts_are_rejected(tmp_path: Path) -> None:
    assert "classes" in message(Settings, write(tmp_path, "classes: [a, [b]]\n"))
    assert '"x: y"' in message(Settings, write(tmp_path, "classes:\n- x: y\n"))
    assert "classes" in message(Settings, write(tmp_path, "classes:\n- a\n-\n"))
    assert "name" in message(Settings, write(tmp_path, "name:\n"))
    assert "quotes" in message(Settings, None, "classes=[*a]")
    assert load_config(Settings, None, ["name="]).name == ""
    assert load_config(Settings, None, ["classes=[<<]"]).classes == ["<<"]


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    text = "proposals: {limit: 1_000, superpixel_scale: 1.5e-3, sigmas: [1, .5]}\nflip: yes\nsecond: ~\n"
    assert load_config(Settings, write(tmp_path, text)) == Settings(
        proposals=Proposals(superpixel_scale=0.0015, limit=1000, sigmas=(1.0, 0.5)), flip=True
    )


def test_keys_with_dots_anchors_and_doubles(tmp_path: Path) -> None:
    assert load_config(Settings, None, [r"thresholds.a\.b=1"]).thresholds == {"a.b": 1.0}
    text = "proposals: &p {limit: 3}\nsecond: {<<: *p, superpixel_scale: 1}\n"
    assert load_config(Settings, write(tmp_path, text)).second == Proposals(limit=3, superpixel_scale=1.0)
    assert "no" in message(Settings, write(tmp_path, "thresholds:\n  no: 1\n  no: 2\n"))
    assert "recursive" in message(Settings, write(tmp_path, "classes: &a [*a]\n"))
    assert "key" in message(Settings, write(tmp_path, "thresholds: {[a]: 1}\n"))


# ---- a section, or a list of such sections


@dataclass(frozen=True)
class Several:
    train: Member | tuple[Member, ...]
    val: Member | tuple[Member, ...] | None = None
    name: str = ""


A, B = Member(Path("a"), 1), Member(Path("b"), 2)
BOTH = "train: [{weights: a, seed: 1}, {weights: b, seed: 2}]\n"


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("train: {weights: a, seed: 1}\n", [], Several(A)),
        ("train: {weights: a}\n", ["train.seed=1"], Several(A)),
        ("train: {weights: a}\n", ["train.0.seed=1"], Several(A)),
        (BOTH, [], Several((A, B))),
        ("train: [{weights: a, seed: 1}]\n", [], Several(A)),  # a list of one is that one
        ("train: [{weights: a}]\n", ["train.seed=1"], Several(A)),
        (BOTH, ["train.1.seed=7"], Several((A, replace(B, seed=7)))),
        (BOTH, ["train.0={weights: c}"], Several((Member(Path("c"), 1), B))),  # as a mapping changes a section
        (BOTH, ["train=[{weights: b, seed: 2}, {weights: a, seed: 1}]"], Several((B, A))),
        (BOTH, ["train=[{weights: b}]"], Several(Member(Path("b")))),  # nothing of the file's list is left
        ("train: {weights: a, seed: 1}\n", ["train=[{weights: a}, {}]"], Several((Member(Path("a")), Member()))),
        (BOTH, ["val=[{seed: 1}, {seed: 2}]", "val=null"], Several((A, B))),
        (BOTH, ["val=[{seed: 1}, {seed: 2}]", "val.0.seed=3"], Several((A, B), (Member(seed=3), Member(seed=2)))),
    ],
)
def test_a_section_or_a_list_of_sections(tmp_path: Path, text: str, overrides: list[str], expected: Several) -> None:
    loaded = load_config(Several, write(tmp_path, text), overrides)
    assert loaded == expected
    save_config(loaded, tmp_path / "saved.yaml")
    assert load_config(Several, tmp_path / "saved.yaml") == expected


def test_a_list_replaces_the_list_of_the_file_that_is_extended(tmp_path: Path) -> None:
    write(tmp_path, BOTH, "base.yaml")
    longer = "train: [{weights: a, seed: 1}, {weights: b, seed: 2}, {seed: 3}]\n"
    path = write(tmp_path, f"extends: base.yaml\n{longer}")
    assert load_config(Several, path).train == (A, B, Member(seed=3))
    assert load_config(Several, write(tmp_path, "extends: base.yaml\ntrain: [{seed: 3}]\n")).train == Member(seed=3)


@pytest.mark.parametrize(
    ("text", "override", "expected"),
    [
        (
            BOTH,
            "train.seed=3",
            "overrides: train is a list of 2: name one of them, as train.0.seed, or replace the list",
        ),
        (BOTH, "train.2.seed=3", "overrides: train is a list of 2, train.0 to train.1; there is no train.2"),
        (BOTH, "train.0.sed=3", "overrides: no key 'train.0.sed'. Did you mean 'train.0.seed'?"),
        (BOTH, "train.0.seed=x", "overrides: train.0.seed must be int, not 'x'"),
        (BOTH, "train=[]", "overrides: train must be a section with keys weights, seed, or a list of such sections"),
        (BOTH, "train=a", "train must be a section with keys weights, seed, or a list of such sections, not 'a'"),
        (BOTH, "train=[a, b]", "or a list of such sections, not ['a', 'b']"),
        (
            "train: [{weights: a, sed: 1}, {}]\n",
            "name=x",
            "detect.yaml: [train.0] has no key 'sed'. Did you mean 'seed'?",
        ),
        ("train: {seed: 1}\n", "train.1.seed=2", "overrides: no key 'train.1.seed'. Known: weights, seed"),
        ("train: {seed: 1}\n", "train.0=2", "overrides: train must be a section with keys weights, seed, or a list"),
        ("name: x\n", "name=y", "no value for 'train'"),
    ],
)
def test_refused_lists_of_sections(tmp_path: Path, text: str, override: str, expected: str) -> None:
    assert expected in message(Several, write(tmp_path, text), override)


def test_a_list_of_an_extended_file_is_not_changed_as_if_it_were_one(tmp_path: Path) -> None:
    write(tmp_path, BOTH, "base.yaml")
    said = message(Several, write(tmp_path, "extends: base.yaml\ntrain: {weights: c}\n"))
    assert said.endswith(
        "detect.yaml: train is a list of 2: name one of them, as train.0.weights, or replace the list by train=[{...}]"
    )
