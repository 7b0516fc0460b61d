"""A folder of one folder per class -> classes and labelled image files.

    ROOT/n01440764/ILSVRC2012_val_00000293.JPEG    the folder's name is the class: a WordNet id, or any name

Classes are numbered in the order of their names as texts; ImageNet's 1,000 stand so in everybody's weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detector.data.ground_truth import DataError
from detector.data.image import IMAGE_SUFFIXES


@dataclass(frozen=True)
class ImageFolder:
    """N images of K classes.

    Attributes:
        classes: K names.
        paths: N files, class by class.
        labels: N positions in classes.
    """

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)


def read_image_folder(root: Path) -> ImageFolder:
    """List the images; hidden files and other suffixes than detector.data.image's are passed over.

    Raises:
        DataError: no such folder, no folder of a class in it, or a class without images.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}, where each class has a folder of images")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DataError(f"{root}: no folders in it; each class has a folder of images, named after it")
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
        if not found:
            raise DataError(f"{folder}: a class without images; fill the folder or take it away")
        paths += found
        labels += [label] * len(found)
    return ImageFolder(tuple(folder.name for folder in folders), tuple(paths), tuple(labels))
