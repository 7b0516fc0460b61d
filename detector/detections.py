"""The detector's result for one image: boxes, scores and labels, best first. Imports NumPy only, so it loads fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import PIL.Image

    from detector.data.image import ImageSource

SHOWN = 5
"""Number of detections that the text of a Detections lists."""


class Detection(NamedTuple):
    """One object found in an image.

    Attributes:
        name: Name of its class; "class 3" where the Detections have no names.
        score: Confidence; higher is better.
        box: x1, y1, x2, y2 in px, far edge exclusive.
        label: Number of its class, 0..K-1.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    label: int


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The D objects found in one image, best first.

    Indexing with a mask, a slice or positions gives Detections, with an integer one Detection, which iteration gives
    too. Detections are equal where all their numbers are; their arrays are read-only copies.

    Attributes:
        boxes: [D, 4] float64, px, far edge exclusive.
        scores: [D] float64, finite, higher is better.
        labels: [D] int64, 0..K-1.
        names: The K class names that labels are positions in, or None.

    Raises:
        ValueError: The lengths differ, a number is not finite, or a label has no name.

    >>> boxes = np.array([[4.0, 8.0, 40.0, 60.0], [50.0, 0.0, 90.0, 60.0]])
    >>> found = Detections(boxes, np.array([0.9, 0.6]), np.array([1, 0]), ("dog", "cat"))
    >>> found
    <2 detections: cat 0.90 [4 8 40 60], dog 0.60 [50 0 90 60]>
    >>> found[found.scores > 0.8]
    <1 detections: cat 0.90 [4 8 40 60]>
    >>> for one in found:
    ...     print(one.name, one.score, one.box)
    cat 0.9 (4.0, 8.0, 40.0, 60.0)
    dog 0.6 (50.0, 0.0, 90.0, 60.0)
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, kind, shape in (
            ("boxes", np.float64, (-1, 4)),
            ("scores", np.float64, (-1,)),
            ("labels", np.int64, (-1,)),
        ):
            array = np.asarray(getattr(self, name), dtype=kind).reshape(shape)
            if array.flags.writeable:  # a part of other detections is not
                array = array.copy()
                array.flags.writeable = False
            object.__setattr__(self, name, array)
        if not len(self.boxes) == len(self.scores) == len(self.labels):
            raise ValueError(f"{len(self.boxes)} boxes, {len(self.scores)} scores, {len(self.labels)} labels")
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("a box or a score is not finite")
        if self.names is not None:
            object.__setattr__(self, "names", tuple(self.names))  # of a tuple this is the tuple itself
            if len(self) and not 0 <= self.labels.min() <= self.labels.max() < len(self.names):
                raise ValueError(f"a label is outside 0..{len(self.names) - 1}, the {len(self.names)} class names")

    @classmethod
    def empty(cls, names: tuple[str, ...] | None = None) -> Detections:
        """Return no detections."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64), names)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        return (
            np.array_equal(self.labels, other.labels)
            and np.array_equal(self.scores, other.scores)
            and np.array_equal(self.boxes, other.boxes)
        )

    def __hash__(self) -> int:
        return hash(tuple((array + 0).tobytes() for array in (self.boxes, self.scores, self.labels)))  # -0 is 0

    def __repr__(self) -> str:
        shown = [
            f"{one.name} {one.score:.2f} [{' '.join(f'{corner:.0f}' for corner in one.box)}]" for one in self[:SHOWN]
        ]
        more = f", and {len(self) - SHOWN} more" if len(self) > SHOWN else ""
        return f"<{len(self)} detections{': ' if shown else ''}{', '.join(shown)}{more}>"

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        for box, score, label in zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True):
            yield Detection(self.names[label] if self.names else f"class {label}", score, tuple(box), label)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Detection: ...

    @overload
    def __getitem__(self, index: slice | NDArray[Any] | Sequence[int]) -> Detections: ...

    def __getitem__(self, index: int | np.integer[Any] | slice | NDArray[Any] | Sequence[int]) -> Any:
        """One Detection by its position, or Detections by a slice, a mask or several positions."""
        if isinstance(index, int | np.integer):
            (one,) = self[np.array([index])]
            return one
        return Detections(self.boxes[index], self.scores[index], self.labels[index], self.names)

    def plot(self, image: ImageSource) -> PIL.Image.Image:
        """Draw the detections on their image.

        Args:
            image: The image, as a detector takes it: a path, bytes, a PIL image or an array.

        Returns:
            A new image, which a notebook displays.

        Raises:
            ImageError: The file cannot be read.
        """
        import PIL.Image

        from detector.drawing import draw_boxes

        worst_first = self[np.argsort(self.scores, kind="stable")]
        texts = [f"{one.name} {one.score:.2f}" for one in worst_first]
        return PIL.Image.fromarray(draw_boxes(image, worst_first.boxes, worst_first.labels.tolist(), texts))

    def to_coco(
        self, image_id: int | str, category_ids: Sequence[int] | Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """Convert to COCO's results format, of which a results file is the list over all images.

        Args:
            image_id: The image's id in the COCO annotation file.
            category_ids: The K category ids in label order, or by class name; None for label + 1.

        Returns:
            D dictionaries with image_id, category_id, bbox (x, y, width, height in px) and score.

        >>> Detections(np.array([[4.0, 8.0, 40.0, 60.0]]), np.array([0.9]), np.array([1]), ("dog", "cat")).to_coco(7)
        [{'image_id': 7, 'category_id': 2, 'bbox': [4.0, 8.0, 36.0, 52.0], 'score': 0.9}]
        """

        def category(one: Detection) -> int:
            if category_ids is None:
                return one.label + 1
            return category_ids[one.name] if isinstance(category_ids, Mapping) else category_ids[one.label]

        return [
            {
                "image_id": image_id,
                "category_id": category(one),
                "bbox": [one.box[0], one.box[1], one.box[2] - one.box[0], one.box[3] - one.box[1]],
                "score": one.score,
            }
            for one in self
        ]

    def to_dict(self) -> dict[str, list[Any]]:
        """Convert to one list per column, for JSON or `pandas.DataFrame(found.to_dict())`.

        >>> Detections(np.array([[4.0, 8.0, 40.0, 60.0]]), np.array([0.9]), np.array([1]), ("dog", "cat")).to_dict()
        {'name': ['cat'], 'score': [0.9], 'box': [[4.0, 8.0, 40.0, 60.0]], 'label': [1]}
        """
        return {
            "name": [one.name for one in self],
            "score": self.scores.tolist(),
            "box": self.boxes.tolist(),
            "label": self.labels.tolist(),
        }
