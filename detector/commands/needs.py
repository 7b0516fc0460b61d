"""What the commands for ILSVRC need before their first hour of work, and how to get what is not there."""

from __future__ import annotations

from pathlib import Path

from detector.data.dataset import DataConfig, DatasetKind
from detector.invocation import command
from proposals.errors import UserError


def check_training(name: str, init: str, multibox: str = "", **data: DataConfig) -> None:
    """See that a training on ILSVRC has its images, its pretrained weights and MultiBox's; no other one is checked.

    Args:
        name: The command.
        init: The pretrained weights.
        multibox: MultiBox's weights; empty for none.
        data: The data by their key in the config.

    Raises:
        UserError: All that is missing, with how to get it.
    """
    if data["train"].kind is not DatasetKind.ilsvrc:
        return
    from detector.checkpoint import find_pretrained
    from detector.multibox import find_multibox
    from detector.network.published import TORCHVISION

    lines = _missing_tree(name, data)
    try:
        if not lines or init != TORCHVISION:  # which would be downloaded
            find_pretrained(init)
    except UserError as error:
        lines += str(error).splitlines()
    try:
        if multibox:
            find_multibox(multibox)
    except UserError as error:
        lines += [*str(error).splitlines(), "  or take the shipped ones: proposals.multibox.weights=multibox_voc"]
    if lines:
        raise UserError("\n".join(lines))


def check_data(name: str, data: DataConfig) -> None:
    """See that the tree of ILSVRC is there where the data of an evaluation are ILSVRC's.

    Raises:
        UserError: It is not; the message says where to get it and how the folder must look.
    """
    lines = _missing_tree(name, {"data": data})
    if lines:
        raise UserError("\n".join(lines))


def _missing_tree(name: str, data: dict[str, DataConfig]) -> list[str]:
    roots = {key: part.root for key, part in data.items() if part.kind is DatasetKind.ilsvrc}
    missing = {key: root for key, root in roots.items() if not Path(root).expanduser().is_dir()}
    if not missing:
        return []
    root = next(iter(missing.values()))
    other = {
        "eval_map": "voc_test data.root=DIR data.split=val",
        "train_classifier": "regions_voc train.root=DIR val.root=DIR",
        "train_multibox": "multibox_voc train.root=DIR val.root=DIR",
    }
    return [
        f"no ILSVRC detection data in {root}",
        "  get it: register at https://image-net.org, unpack ILSVRC2017_DET.tar.gz (55 GB; train and val are of 2014)",
        f"  folders: {root}/ImageSets/DET, {root}/Data/DET/{{train,val}}, {root}/Annotations/DET/{{train,val}}",
        f"  or name the folder that has them: {command(name)} {' '.join(f'{key}.root=DIR' for key in missing)}",
        f"  or take other data, such as PASCAL VOC: {command(name)} --config {other[name]}",
    ]
