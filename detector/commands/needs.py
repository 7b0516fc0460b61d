"""Check what the commands for ILSVRC need before hours of work, and say how to get what is missing."""

from __future__ import annotations

from pathlib import Path

from detector.data.dataset import DatasetKind, Sources, sources_by_key
from detector.invocation import command
from proposals.errors import UserError

OTHER_DATA = {
    "eval_map": "voc_test data.root=DIR data.split=val",
    "train_classifier": "regions_voc train.root=DIR val.root=DIR",
    "train_multibox": "multibox_voc train.root=DIR val.root=DIR",
}
"""A config and settings for other data than ILSVRC's, by command."""


def check_needs(name: str, data: dict[str, Sources], *, init: str = "", multibox: str = "") -> None:
    """Check that a run on ILSVRC has its images, its pretrained weights and MultiBox's; other runs are not checked.

    Args:
        name: Name of the command.
        data: The data by their key in the config.
        init: Pretrained weights; empty for none.
        multibox: MultiBox's weights; empty for none.

    Raises:
        UserError: Something is missing; the message lists all of it and says how to get it.
    """
    parts = {key: part for name, some in data.items() for key, part in sources_by_key(name, some).items()}
    roots = {key: part.root for key, part in parts.items() if part.kind is DatasetKind.ilsvrc}
    if not roots:
        return
    missing = {key: root for key, root in roots.items() if not Path(root).expanduser().is_dir()}
    lines: list[str] = []
    if missing:
        root = next(iter(missing.values()))
        lines = [
            f"no ILSVRC detection data in {root}",
            "  get it: register at https://image-net.org, unpack ILSVRC2017_DET.tar.gz "
            "(55 GB; train and val are of 2014)",
            f"  folders: {root}/ImageSets/DET, {root}/Data/DET/{{train,val}}, {root}/Annotations/DET/{{train,val}}",
            f"  or name the folder that has them: {command(name)} {' '.join(f'{key}.root=DIR' for key in missing)}",
            f"  or take other data, such as PASCAL VOC: {command(name)} --config {OTHER_DATA[name]}",
        ]
    if init:
        lines += _missing_weights(init, download=not missing)
    if multibox:
        from detector.multibox import find_multibox

        try:
            find_multibox(multibox)
        except UserError as error:
            lines += str(error).splitlines()
    if lines:
        raise UserError("\n".join(lines))


def _missing_weights(init: str, *, download: bool) -> list[str]:
    from detector.checkpoint import find_pretrained
    from detector.network.published import TORCHVISION

    try:
        if download or init != TORCHVISION:
            find_pretrained(init)
    except UserError as error:
        return str(error).splitlines()
    return []
