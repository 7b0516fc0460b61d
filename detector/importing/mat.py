"""MATLAB files of proposals.

    R-CNN, Fast R-CNN   one file: `images`, a cell of names, and `boxes`, a cell of [n, 4] y1 x1 y2 x2 from pixel 1
    detection-proposals a folder, one NAME.mat per image: `boxes` [n, 4] x1 y1 x2 y2 from pixel 1, `scores`,
                        `num_candidates`; where they are cells, one entry per run with another wanted number of boxes

Sources: Girshick's selective-search files for R-CNN; Hosang et al., PAMI 2016, and their code "detection-proposals".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from detector.evaluation.truth import VOC
from detector.importing.given import Given, ProposalFileError

HDF5 = "saved with -v7.3, which is HDF5; load it in MATLAB or Octave and save it again with -v7"


def read_mat(path: Path) -> Given:
    """Read a file of many images, or of one, which is named by the file.

    Raises:
        ProposalFileError: no MATLAB file of version 5 to 7, or one without such variables; see Given.of_images.
    """
    content = _load(path)
    if "images" not in content:
        return _of_images(path, [path])
    names, boxes = (np.asarray(content[key]).reshape(-1) for key in ("images", "boxes"))
    if len(names) != len(boxes):
        raise ProposalFileError(f"{path}: {len(names)} images, and boxes of {len(boxes)}")
    texts = [str(np.asarray(name).reshape(-1)[0]) if np.size(name) else "" for name in names]
    return Given.of_images(path, texts, list(boxes), None, "yxyx", VOC)


def read_mat_folder(folder: Path) -> Given:
    """Read a folder of a file per image, in folders within it too.

    Raises:
        ProposalFileError: there are none; as read_mat.
    """
    files = sorted(folder.rglob("*.mat"))
    if not files:
        raise ProposalFileError(
            f"{folder}: no .mat files in this folder; name a file, or a folder of NAME.mat per image"
        )
    return _of_images(folder, files)


def _of_images(path: Path, files: list[Path]) -> Given:
    boxes, scores = [], []
    for file in files:
        content = _load(file)
        found, own = (_longest_run(content.get(key), content) for key in ("boxes", "scores"))
        boxes.append(found)
        scores.append(own)
    # A method without scores saves an empty array, or one number for all.
    ranked = any(np.size(own) and np.ptp(np.asarray(own)) > 0 for own in scores)
    return Given.of_images(path, [file.stem for file in files], boxes, scores if ranked else None, "xyxy", VOC)


def _longest_run(value: Any, content: dict[str, Any]) -> Any:
    """Return the array of the run for most boxes, where a file holds several."""
    if value is None or np.asarray(value).dtype != object:
        return np.zeros(0) if value is None else value
    runs = np.asarray(value).reshape(-1)
    wanted = np.asarray(content.get("num_candidates", ())).reshape(-1)
    return runs[int(np.argmax(wanted)) if len(wanted) == len(runs) else -1] if len(runs) else np.zeros(0)


def _load(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat  # slow to import
    from scipy.io.matlab import MatReadError

    try:
        content: dict[str, Any] = loadmat(path)
    except NotImplementedError as error:
        raise ProposalFileError(f"{path}: {HDF5}") from error
    except OSError as error:
        raise ProposalFileError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    except (MatReadError, ValueError, TypeError, EOFError) as error:
        raise ProposalFileError(f"{path}: not a MATLAB file, or damaged ({error})") from error
    if "boxes" not in content:
        known = ", ".join(key for key in content if not key.startswith("__")) or "none"
        raise ProposalFileError(f"{path}: has no variable 'boxes'; its variables: {known}")
    return content
