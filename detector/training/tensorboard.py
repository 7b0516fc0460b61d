"""The rows of metrics for TensorBoard, in the run's folder tensorboard/, where the package is installed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detector.report.training_page import CLASS_AP
from proposals.errors import UserError

CHOICES = ("auto", "true", "false")

_LOG = logging.getLogger(__name__)


class TensorBoardError(UserError):
    """TensorBoard is asked for and not installed."""


def check_tensorboard(setting: str) -> None:
    """Check, before a training begins, that TensorBoard is there if it is asked for.

    Raises:
        TensorBoardError: tensorboard=true, and the package cannot be imported.
    """
    if setting != "true":
        return
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401 - whether it can be imported
    except Exception as error:  # ImportError, or whatever a broken installation raises
        reason = "is not installed" if isinstance(error, ImportError) else f"does not start ({error})"
        raise TensorBoardError(
            f"tensorboard=true needs the package tensorboard, which {reason}: pip install tensorboard, or leave the "
            "setting out"
        ) from error


class TensorBoard:
    """Writes rows; a run that is resumed goes on in the same folder.

    Args:
        folder: Folder of the events.
        setting: "auto" writes where the package is installed, "true" always, "false" never.
    """

    def __init__(self, folder: Path, setting: str = "auto") -> None:
        self._folder, self._off = folder, setting == "false"
        self._writer: Any = None

    def add(self, row: Mapping[str, float]) -> None:
        """Write the row of an epoch. Without the package nothing is written; a failure is logged once."""
        if self._off:
            return
        epoch = int(row["epoch"])
        try:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                # Steps from purge_step on belong to epochs that are trained again.
                self._writer = SummaryWriter(str(self._folder), purge_step=epoch)
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(scalar_name(name), value, epoch)
            self._writer.flush()
        except ImportError:
            self._off = True
        except Exception as error:  # a plot is no reason to end a training
            _LOG.warning("no TensorBoard (%s)", error)
            self._off = True

    def close(self) -> None:
        """Close the file of events."""
        if self._writer:
            self._writer.close()


def scalar_name(column: str) -> str:
    """Name a column of the metrics so that TensorBoard groups what belongs together.

    >>> [scalar_name(name) for name in ("train_loss", "val_loss", "val_ap", "val_ap/cat", "data_seconds", "momentum")]
    ['loss/train', 'loss/val', 'ap/val', 'class_ap/cat', 'seconds/data', 'momentum']
    """
    if column.startswith(CLASS_AP):
        return f"class_ap/{column.removeprefix(CLASS_AP)}"
    if column.endswith("_seconds"):
        return f"seconds/{column.removesuffix('_seconds')}"
    part, _, quantity = column.partition("_")
    return f"{quantity}/{part}" if part in ("train", "val") and quantity else column
