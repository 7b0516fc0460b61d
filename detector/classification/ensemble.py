"""Class probabilities of whole images, averaged over crops and over models (paper §7).

In: weights, images.  Out: Predictions, which can be saved and combined later: every model sees equally many crops, so
the mean of the models' means is the mean over all. The paper found the maximum over crops to be worse than the mean.

N images, K classes.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detector.checkpoint import ImageClassifier
from detector.classification.crops import cut_crops, plan_crops
from detector.data.image import Image
from detector.network.input import network_input
from proposals.errors import UserError
from proposals.files import write_whole
from proposals.selective.colour import to_rgb


def classify(
    classifier: ImageClassifier, image: Image, crops: int = 10, *, batch: int = 32, device: torch.device | str = "cpu"
) -> NDArray[np.float64]:
    """Average the softmax over an image's crops; [H, W, 3] uint8 RGB -> [K].

    Crops that occur more than once, as in square images, are computed once and weighted.

    Args:
        classifier: The classifier, in evaluation mode.
        image: [H, W, 3] uint8 RGB, or another array that proposals.selective.colour.to_rgb converts.
        crops: Number of crops, 1, 10 or 144.
        batch: Crops per pass.
        device: Device of the network.
    """
    image = to_rgb(image)
    counts = Counter(plan_crops(crops, image.shape[1], image.shape[0], classifier.size))
    different = list(counts)
    total = np.zeros(classifier.network.config.classes)
    for start in range(0, len(different), batch):
        part = different[start : start + batch]
        squares = cut_crops(image, part, classifier.size)  # [B, 224, 224, 3]
        x = network_input(squares, classifier.convention, device)  # [B, 3, 224, 224]
        with torch.inference_mode():
            logits = classifier.network(x).cpu()  # [B, K]; Apple's GPUs have no float64
        total += np.array([counts[crop] for crop in part]) @ logits.double().softmax(dim=1).numpy()
    result: NDArray[np.float64] = total / counts.total()
    return result


class PredictionsError(UserError):
    """Predictions that cannot be read or do not belong together."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Class probabilities of N images by one model, or the mean of several.

    Attributes:
        models: Number of models.
        crops: Number of crops per image and model.
        images: N names of the images.
        labels: [N] int64, the true classes.
        probabilities: [N, K] float32.
        seconds: Time per image, all models together; 0 if unknown.
    """

    models: int
    crops: int
    images: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    seconds: float

    def hits(self, best: int) -> int:
        """Count the images whose class is among the `best` most probable ones; the first of equals is preferred."""
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :best]
        return int((order == self.labels[:, None]).any(axis=1).sum())

    def save(self, path: Path) -> None:
        """Write an .npz file, without pickle."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read a file that `save` wrote.

        Raises:
            PredictionsError: no such file, or another kind of file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                images, labels, probabilities = tuple(file["images"].tolist()), file["labels"], file["probabilities"]
                numbers = int(file["models"]), int(file["crops"])
                return cls(*numbers, images, labels, probabilities, float(file["seconds"]))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise PredictionsError(f"{path}: no saved predictions ({error})") from error


def combine(parts: Sequence[Predictions]) -> Predictions:
    """Average the predictions of several models on the same images with the same crops: an ensemble.

    Raises:
        PredictionsError: none given, or they differ in images, classes or number of crops.
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
    if not all(np.array_equal(part.labels, first.labels) for part in parts):  # then their columns differ too
        raise UserError("predictions of models that number the classes differently cannot be combined")
    seconds = sum(part.seconds for part in parts) if known else 0.0
    probabilities = (total / models).astype(np.float32)
    return Predictions(models, first.crops, first.images, first.labels, probabilities, seconds)


def interval(hits: int, count: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion, by Wilson's score (1927)."""
    from scipy.stats import binomtest  # slow to import

    low, high = binomtest(hits, count).proportion_ci(method="wilson")
    return float(low), float(high)


def format_predictions(rows: Iterable[Predictions], width: int | None = None) -> str:
    """Format a table like the paper's Table 3: cost, errors with confidence intervals, and seconds per image.

    Args:
        rows: Predictions of models and ensembles.
        width: Most characters in a line, see `detector.table.columns`; None for no limit.
    """
    from detector.table import columns

    table: list[tuple[str, ...]] = [
        ("models", "crops", "cost", "top-1 error", "95 % CI", "top-5 error", "95 % CI", "s/image", "images")
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
    return "\n".join(columns(table, width=width))
