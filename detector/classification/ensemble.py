"""What classifiers make of whole images: probabilities, averaged over crops and over models (paper §7).

In: weights, images.  Out: Predictions, which can be kept and combined later; a mean of means is the mean over all,
since every model sees as many crops. The paper tried the maximum over crops too: it is worse.

N images, K classes.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detector.checkpoint import ImageClassifier
from detector.classification.crops import cut, distinct, plan
from detector.data.image import Image
from detector.network.input import network_input
from proposals.errors import UserError
from proposals.files import write_whole
from proposals.selective.colour import to_rgb


def classify(
    classifier: ImageClassifier, image: Image, crops: int = 10, *, batch: int = 32, device: torch.device | str = "cpu"
) -> NDArray[np.float64]:
    """Mean softmax over an image's crops; [H, W, 3] uint8 RGB -> [K].

    Crops that occur more than once, as in square images, are computed once and counted as often as they occur.

    Args:
        classifier: the network, in evaluation mode.
        image: [H, W, 3] uint8 RGB; other arrays as proposals.selective.colour.to_rgb takes them.
        crops: 1, 10 or 144; of another size than 224 all of their geometry is in that proportion.
        batch: crops at a time.
        device: where the network is.
    """
    image = to_rgb(image)
    different, counts = distinct(plan(crops, image.shape[1], image.shape[0], classifier.size))
    total = np.zeros(classifier.network.config.classes)
    for start in range(0, len(different), batch):
        squares = cut(image, different[start : start + batch], classifier.size)  # [B, 224, 224, 3]
        x = network_input(squares, classifier.convention, device)  # [B, 3, 224, 224]
        with torch.inference_mode():
            logits = classifier.network(x).cpu()  # [B, K]; Apple's GPUs have no float64
        probabilities = logits.double().softmax(dim=1).numpy()
        total += counts[start : start + batch] @ probabilities
    result: NDArray[np.float64] = total / counts.sum()
    return result


class PredictionsError(UserError):
    """Predictions that cannot be read or do not belong together."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one model, or several together, say of N images.

    Attributes:
        models: how many models.
        crops: crops an image and model.
        images: N names.
        labels: [N] int64, the classes they are of.
        probabilities: [N, K] float32.
        seconds: per image, all models together; 0 where unknown.
    """

    models: int
    crops: int
    images: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    seconds: float

    def hits(self, best: int) -> int:
        """Images whose class is among the so many most probable ones, of equals the first."""
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :best]
        return int((order == self.labels[:, None]).any(axis=1).sum())

    def save(self, path: Path) -> None:
        """Write them as .npz, without pickle."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                models=self.models,
                crops=self.crops,
                images=np.array(self.images),
                labels=self.labels,
                probabilities=self.probabilities,
                seconds=self.seconds,
            )

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what save wrote.

        Raises:
            PredictionsError: no such file, or another kind of file.
        """
        try:
            with np.load(path, allow_pickle=False) as content:
                return cls(
                    int(content["models"]),
                    int(content["crops"]),
                    tuple(content["images"].tolist()),
                    content["labels"],
                    content["probabilities"],
                    float(content["seconds"]),
                )
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise PredictionsError(f"{path}: no saved predictions ({error})") from error


def combine(parts: Sequence[Predictions]) -> Predictions:
    """The ensemble: the mean over models of predictions on the same images with the same crops.

    Raises:
        PredictionsError: none given, or they are of other images, classes or numbers of crops.
    """
    if not parts:
        raise PredictionsError("no predictions to combine")
    first = parts[0]
    for part in parts[1:]:
        if part.images != first.images or part.probabilities.shape != first.probabilities.shape:
            raise PredictionsError("predictions of different images or classes cannot be combined")
        if part.crops != first.crops:
            raise PredictionsError(f"predictions from {first.crops} and from {part.crops} crops cannot be combined")
    models = sum(part.models for part in parts)
    total = sum((part.models * part.probabilities.astype(np.float64) for part in parts), np.zeros(()))
    known = all(part.seconds for part in parts)
    if not all(np.array_equal(part.labels, first.labels) for part in parts):  # nor do the probabilities' columns agree
        raise UserError("predictions of models that number the classes differently cannot be combined")
    return Predictions(
        models,
        first.crops,
        first.images,
        first.labels,
        (total / models).astype(np.float32),
        sum(part.seconds for part in parts) if known else 0.0,
    )


def interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score (1927)."""
    z = 1.959964
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return centre - half, centre + half


def format_predictions(rows: Iterable[Predictions]) -> str:
    """A line per number of models and crops, as Table 3: cost, errors with their intervals, seconds per image."""
    from detector.table import columns

    table: list[tuple[str, ...]] = [
        ("models", "crops", "cost", "top-1 error", "95 %", "top-5 error", "95 %", "s/image", "images")
    ]
    for row in rows:
        cells = []
        for best in (1, 5):
            low, high = interval(row.hits(best), len(row.images))
            cells += [f"{1 - row.hits(best) / len(row.images):.2%}", f"{1 - high:.2%}-{1 - low:.2%}"]
        seconds = f"{row.seconds:.3f}" if row.seconds else "-"
        table.append(
            (str(row.models), str(row.crops), str(row.models * row.crops), *cells, seconds, str(len(row.images)))
        )
    return "\n".join(columns(table))
