"""Recognise the layout of a data set's folder by its files.

In: a folder.  Out: a Finding: the kind of layout, the parts with their settings, one sentence of evidence.
A layout must be the only one: where two might be meant, the error names both and the setting that decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from detector.data.ground_truth import DataError, listed
from detector.data.json_files import images_of, kind_of_json, split_of
from detector.data.listing import IMAGE_SUFFIXES, walk
from detector.data.trees import common_name, in_order, is_part, part_of, summary
from detector.data.voc import annotation_files
from detector.data.yolo import has_labels
from detector.data.yolo_layout import YoloTree

SAMPLE = 5
"""Files of a folder that are opened to recognise their kind."""

LOOKED_FOR = """\
  PASCAL VOC: XML files with <annotation>, in Annotations or beside the images
  COCO: a JSON file with images, annotations and categories
  YOLO: data.yaml, or text files with rows of numbers in labels or beside the images
  labelme: JSON files with shapes, beside the images
  ILSVRC: ImageSets/DET;  classes of whole images: a folder of images a class"""


class Part(NamedTuple):
    """Settings of one part of a data set, as in DataConfig."""

    split: str = ""
    annotations: str = ""
    images: str = ""


@dataclass(frozen=True)
class Finding:
    """What a folder holds.

    Attributes:
        kind: voc, coco, yolo, labelme, ilsvrc or folder.
        parts: Settings of each part, by common name: val for one that is called valid. {"": ...} where there are none;
            empty for folder.
        evidence: One sentence on what was seen.
    """

    kind: str
    parts: Mapping[str, Part]
    evidence: str


@dataclass
class _Survey:
    """The files of a folder by kind of suffix."""

    root: Path
    images: list[Path] = field(default_factory=list)
    others: dict[str, list[Path]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems: list[str] = []
        for path in walk(self.root, True, problems):
            suffix = path.suffix.lower()
            (self.images if suffix in IMAGE_SUFFIXES else self.others.setdefault(suffix, [])).append(path)
        if problems:
            raise DataError(problems[0])


def find_layout(root: Path) -> Finding:
    """Recognise the layout of a folder.

    Raises:
        DataError: there is no such folder; it holds no data set, and the message says what was looked for; it holds
            two; a file that describes it is malformed.
    """
    if not root.is_dir():
        raise DataError(f"no data set folder {str(root)!r}")
    if (root / "ImageSets" / "DET").is_dir() or (root / "Annotations" / "DET").is_dir():
        return _ilsvrc(root)
    survey = _Survey(root)
    found = [one for search in (_voc, _coco, _yolo, _labelme) if (one := search(survey)) is not None]
    if len(found) > 1:
        ways = "\n".join(f"  data.kind={one.kind}  {one.evidence}" for one in found)
        raise DataError(f"{root} may be read in {len(found)} ways; say in which:\n{ways}")
    if not found and (classes := _folders(survey)) is not None:
        return classes
    if not found:
        raise _nothing(survey)
    return found[0]


def _ilsvrc(root: Path) -> Finding:
    stems = sorted(path.stem for path in (root / "ImageSets" / "DET").glob("*.txt"))
    splits = [stem for stem in stems if not re.fullmatch(r"train_\d+", stem)]
    if (root / "Annotations" / "DET" / "val").is_dir():
        splits += [name for name in ("val1", "val2") if name not in splits]
    return Finding("ilsvrc", _by_name(splits), f"ILSVRC DET: ImageSets/DET, {summary(splits or ['none'])}")


def _voc(survey: _Survey) -> Finding | None:
    root = survey.root
    files = [path for path in annotation_files(root) if path.suffix] if ".xml" in survey.others else []
    if not any(_is_voc(path) for path in files[:SAMPLE]):
        return None
    lists = sorted(path.stem for path in (root / "ImageSets" / "Main").glob("*.txt"))
    splits = [name for name in lists if "_" not in name] or lists
    splits = splits or sorted({part for path in files if (part := part_of(path, root))})
    return Finding("voc", _by_name(splits), f"PASCAL VOC: {_files(len(files), 'XML')} {_where(files, root, splits)}")


def _labelme(survey: _Survey) -> Finding | None:
    files = [path for path in survey.others.get(".json", []) if path.name not in _coco_names(survey)]
    if not any(kind_of_json(path) == "labelme" for path in _sample(files)):
        return None
    splits = sorted({part for path in files if (part := part_of(path, survey.root))})
    evidence = f"labelme: {_files(len(files), 'JSON')} {_where(files, survey.root, splits)}"
    return Finding("labelme", _by_name(splits), evidence)


def _yolo(survey: _Survey) -> Finding | None:
    tree = YoloTree(survey.root)
    if tree.settings is not None and (tree.settings.parts or tree.settings.names):
        names = len(tree.settings.names) or tree.settings.count
        seen = f"{tree.settings.path.name} with {names} {'class' if names == 1 else 'classes'}"
    elif ".txt" in survey.others:
        labels = [path for image in tree.labelled if (path := tree.labels.find(image)) is not None]
        filled = [path for path in labels if path.stat().st_size]
        if not filled or not all(map(has_labels, filled[:SAMPLE])):
            return None
        seen = f"{_files(len(labels), 'label')} for {len(tree.labelled):,} images"
    else:
        return None
    return Finding("yolo", _by_name(tree.parts), f"YOLO: {seen}, {summary(tree.parts) if tree.parts else 'no splits'}")


def _coco(survey: _Survey) -> Finding | None:
    files = [path for path in _sample(survey.others.get(".json", [])) if kind_of_json(path) == "coco"]
    official = [path for path in files if path.name.startswith("instances_")]
    files = official or files
    if not files:
        return None
    parts: dict[str, Part] = {}
    places: dict[str, Path] = {}
    for path in files:
        split = split_of(path, survey.root) or ("" if len(files) == 1 else path.stem)
        if split in parts:
            raise DataError(f"{places[split]} and {path} may both be the annotations; set data.annotations=FILE")
        relative = path.relative_to(survey.root).as_posix()
        parts[split], places[split] = Part(split, relative, images_of(path, split, survey.root)), path
    named = [split for split in parts if split]
    names = listed([part.annotations for part in parts.values()], 3)
    return Finding("coco", _common(parts), f"COCO: annotations in {names}, {summary(named) if named else 'no splits'}")


def _folders(survey: _Survey) -> Finding | None:
    """Recognise images that lie in one folder a class."""
    root = survey.root
    inside = Counter(path.relative_to(root).parts[:-1] for path in survey.images)
    tops = {folders[0] for folders in inside if folders}
    parts = sorted(tops) if tops and all(map(is_part, tops)) and any(len(folders) > 1 for folders in inside) else []
    depth = 1 if parts else 0
    classes = sorted({folders[depth] for folders in inside if len(folders) > depth})
    if len(classes) < 2 or () in inside or any(len(folders) <= depth for folders in inside):
        return None
    return Finding(
        "folder",
        {},
        f"one folder a class: {len(classes):,} classes ({listed(classes, 5)}), {len(survey.images):,} images"
        + (f", {summary(parts)}" if parts else ""),
    )


def _nothing(survey: _Survey) -> DataError:
    kinds = Counter({suffix or "without suffix": len(paths) for suffix, paths in survey.others.items()})
    counts = [f"{len(survey.images):,} images"] * bool(survey.images)
    counts += [f"{count:,} {suffix}" for suffix, count in kinds.most_common(5)]
    lines = [f"{survey.root}: no data set is recognised; it holds {', '.join(counts) or 'no files'}. Looked for:"]
    hint = ""
    if any(_is_cvat(path) for path in survey.others.get(".xml", [])[:SAMPLE]):
        hint = "\n  an XML file is CVAT's own format: export the task as COCO 1.0, PASCAL VOC or Ultralytics YOLO"
    elif survey.images and not survey.others:
        hint = "\n  these are images without labels; label them first, for instance with labelme or CVAT"
    return DataError("\n".join(lines) + f"\n{LOOKED_FOR}{hint}")


# ---- kinds of files


def _is_voc(path: Path) -> bool:
    return re.search(rb"<([\w.-]+:)?annotation[\s>]", _head(path)) is not None


def _is_cvat(path: Path) -> bool:
    return re.search(rb"<annotations[\s>]", _head(path)) is not None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096).replace(b"\0", b"")  # UTF-16's too
    except OSError:
        return b""


def _sample(files: Sequence[Path]) -> Iterator[Path]:
    """Yield the first files of each folder, and those that are named like COCO's."""
    seen: Counter[Path] = Counter()
    for path in files:
        seen[path.parent] += 1
        if seen[path.parent] <= SAMPLE or "coco" in path.name.lower() or path.name.startswith("instances_"):
            yield path


def _coco_names(survey: _Survey) -> set[str]:
    return {path.name for path in survey.others.get(".json", []) if path.name.endswith(".coco.json")}


# ---- words


def _by_name(splits: Sequence[str]) -> dict[str, Part]:
    return _common({split: Part(split) for split in splits}) or {"": Part()}


def _common(parts: Mapping[str, Part]) -> dict[str, Part]:
    """Return parts by their common names, where these differ from each other."""
    names = [common_name(part) for part in parts]
    named = dict(zip(names if len(set(names)) == len(names) else parts, parts.values(), strict=True))
    return {name: named[name] for name in in_order(named)}


def _files(count: int, kind: str) -> str:
    return f"{count:,} {kind} {'file' if count == 1 else 'files'}"


def _where(files: Sequence[Path], root: Path, splits: Sequence[str]) -> str:
    """Return the folders of files and the splits, for the evidence."""
    folders = dict.fromkeys(path.parent.relative_to(root).as_posix() for path in files)
    place = "in the folder itself" if list(folders) == ["."] else f"in {listed(list(folders), 3)}"
    return f"{place}, {summary(splits) if splits else 'no splits'}"
