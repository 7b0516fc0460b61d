"""Recognise what data set a folder is, as data.kind=auto does: the layout, and the settings that read each part.

In: a folder.  Out: a Layout, whose parts open_dataset reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detector.data.dataset import DataConfig, DatasetKind
from detector.data.layouts import find_layout


@dataclass(frozen=True)
class Layout:
    """A recognised data set.

    Attributes:
        kind: voc, coco, yolo, labelme, ilsvrc, or folder (one folder a class, for classifiers of whole images).
        root: Its folder.
        parts: Settings of each part, by name: train, val and test also where the folders are called training, valid
            or testing. {"": settings} where the folder has no parts; empty for kind folder.
        evidence: What was seen, one sentence for the user.
    """

    kind: str
    root: Path
    parts: dict[str, DataConfig]
    evidence: str


def recognise(root: Path) -> Layout:
    """Recognise the data set in a folder by its files.

    Raises:
        DataError: there is no such folder; it holds no data set, and the message says what was looked for; it holds
            two, and the message names both; a file that describes it is malformed.
    """
    finding = find_layout(root)
    parts = {
        name: DataConfig(DatasetKind[finding.kind], str(root), **part._asdict()) for name, part in finding.parts.items()
    }
    return Layout(finding.kind, root, parts, finding.evidence)
