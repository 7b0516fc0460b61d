"""Values by image -> slices of the images.

    texts and few numbers   a slice for each value
    many different numbers  three slices with about as many images each; images of one value are in one slice
    no value                a slice of its own, "(none)"

Many are more than 20 different values, or as many as images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import listed
from detector.evaluation.results import ResultsError

MOST_VALUES = 20
"""Most different values of a column that are a slice each."""
THIRDS = 3
NONE = "(none)"
NAMED = 3  # values that a message names


def slices_of(name: str, values: Sequence[str]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Divide images by a value, as the module's header says.

    Args:
        name: Name of the values, for messages.
        values: [I] value of each image, "" for none.

    Returns:
        Value, or range of values, and the [I] mask of its images; numbers rising, texts sorted, "(none)" last.

    Raises:
        ResultsError: no image has a value, or too many different ones are no numbers.
    """
    known = [value for value in values if value]
    texts = sorted(set(known))
    if not texts:
        raise ResultsError(f"column {name!r} has no values")
    numbers = [_number(text) for text in texts]
    many = len(texts) > MOST_VALUES or len(texts) == len(known) > THIRDS
    if None not in numbers:
        result = _of_numbers([math.nan if (one := _number(value)) is None else one for value in values], many=many)
    elif many:
        raise ResultsError(
            f"column {name!r} has {len(texts)} different values in {len(known)} images ({listed(texts, NAMED)}); "
            f"a slice needs several images of one value, and a column of texts at most {MOST_VALUES} values"
        )
    else:
        result = [(text, np.array([value == text for value in values])) for text in texts]
    empty = np.array([not value for value in values])
    return [*result, *([(NONE, empty)] if empty.any() else [])]


def _of_numbers(values: Sequence[float], *, many: bool) -> list[tuple[str, NDArray[np.bool_]]]:
    """Divide images by a number, NaN for none: by its value or, of many, in thirds."""
    numbers = np.array(values)
    known = numbers[~np.isnan(numbers)]
    if many:
        inner = np.quantile(known, [1 / THIRDS, 2 / THIRDS], method="inverted_cdf")  # values that occur
        limits = [-math.inf, *np.unique(inner).tolist(), math.inf]
        masks = [(numbers > low) & (numbers <= high) for low, high in pairwise(limits)]
    else:
        masks = [numbers == value for value in np.unique(known)]
    return [(_range(numbers[mask]), mask) for mask in masks if mask.any()]


def _range(numbers: NDArray[np.float64]) -> str:
    low, high = float(numbers.min()), float(numbers.max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
