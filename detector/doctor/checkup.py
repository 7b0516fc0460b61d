"""All checks of a data set: of its files, labels, classes and parts, of what proposals reach, and by a model.

In: the parts of a data set, the first of which is trained on.  Out: a Checkup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from detector.data.dataset import Sources, open_dataset
from detector.data.ground_truth import DataError, Dataset, Record
from detector.data.labelled_images import LabelledImages
from detector.data.sources import OtherClasses
from detector.doctor.boxes import check_boxes, check_repairs
from detector.doctor.classes import ClassCounts, check_classes
from detector.doctor.copies import check_copies
from detector.doctor.coverage import SAMPLE, Reach, check_reach, draw_records, measure_reach
from detector.doctor.findings import Finding, Level, finding, merged
from detector.doctor.images import ImageFacts, check_files, check_images, read_facts
from proposals.boxes import Boxes
from proposals.settings import MultiBoxSettings, ProposalConfig

PROPOSALS = ProposalConfig(multibox=MultiBoxSettings(weights="multibox_voc", crops=1))
"""The proposals of the shipped presets: selective search ×2 and MultiBox."""
MODEL_SAMPLE = 200
"""Most images of a part that a model looks at."""


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a data set with its image files.

    Attributes:
        name: Its name; empty for the whole of a data set without parts.
        dataset: Its labels, read without regard to the image files.
        facts: Its image files, in the order of the records.
    """

    name: str
    dataset: Dataset
    facts: tuple[ImageFacts, ...]

    @property
    def usable(self) -> list[Record]:
        """The images that can be read and have the size that their labels state."""
        return [
            record
            for record, fact in zip(self.dataset.records, self.facts, strict=True)
            if fact.readable and (record.width, record.height) in (fact.size, (0, 0))
        ]


@dataclass(frozen=True, eq=False)
class Checkup:
    """What the doctor knows of a data set.

    Attributes:
        counts: Objects of each class in each part.
        findings: What was found, errors first.
        reach: What proposals cover; None where it was not measured.
        sample: The images on which it was measured.
        boxes: Their proposals.
    """

    counts: tuple[ClassCounts, ...]
    findings: list[Finding]
    reach: Reach | None = None
    sample: list[Record] = field(default_factory=list)
    boxes: list[Boxes] = field(default_factory=list)

    def has(self, level: Level) -> bool:
        """Whether there is a finding of a level."""
        return any(one.level is level for one in self.findings)


def open_part(
    name: str, data: Sources, *, classes: Sequence[str] = (), other_classes: OtherClasses = OtherClasses.ignore
) -> tuple[Part | None, list[Finding]]:
    """Read the labels and the image files of a part.

    Returns:
        the part, None where its labels cannot be read; and what its reader repaired, or why it failed, and what is
        wrong with the image files.
    """
    try:
        dataset = open_dataset(data, need_images=False, classes=classes, other_classes=other_classes)
    except DataError as error:
        return None, finding("data.unreadable", str(error), [], count=1)
    facts = read_facts([record.path for record in dataset.records], f"images of {dataset.name}")
    return Part(name, dataset, facts), [*check_repairs(name, dataset), *check_images(name, dataset, facts)]


def examine(
    parts: Sequence[Part],
    *,
    proposals: ProposalConfig | None = PROPOSALS,
    seed: int = 0,
    model: str = "",
    known: Sequence[Finding] = (),
) -> Checkup:
    """Check the parts of a detection data set.

    Args:
        parts: At least one; the first is trained on.
        proposals: Settings of the proposals whose reach is measured on a sample of the first part; None measures none.
        seed: Seed of the samples.
        model: Preset or weights of a detector that looks for unlabelled objects; empty for none.
        known: What open_part found.

    Raises:
        UserError: the model cannot be loaded, or knows none of the classes.
    """
    counts = tuple(ClassCounts.of_boxes(part.name, part.dataset) for part in parts)
    findings = [*known, *check_classes(counts), *check_copies([(part.name, part.facts) for part in parts])]
    for part in parts:
        findings += check_boxes(part.name, part.dataset)
    if model:
        findings += _by_model(parts, model, seed)
    reach: Reach | None = None
    boxes: list[Boxes] = []
    sample = draw_records(parts[0].usable, SAMPLE, seed) if proposals else []
    if sample and proposals:
        reach, boxes = measure_reach(parts[0].dataset, sample, proposals)
        findings += check_reach(reach)
    return Checkup(counts, merged(findings), reach, sample, boxes)


def examine_images(parts: Sequence[tuple[str, LabelledImages, Sequence[ImageFacts]]]) -> Checkup:
    """Check the parts of a data set of whole images, of one class each."""
    counts = tuple(ClassCounts.of_images(name, images) for name, images, _ in parts)
    findings = [*check_classes(counts), *check_copies([(name, facts) for name, _, facts in parts])]
    for name, _, facts in parts:
        findings += check_files(name, facts)
    return Checkup(counts, merged(findings))


def _by_model(parts: Sequence[Part], model: str, seed: int) -> list[Finding]:
    from detector.doctor.unlabelled import check_unlabelled, find_unlabelled, open_detector

    detector = open_detector(model)
    found, images = [], 0
    for part in parts:
        records = draw_records(part.usable, MODEL_SAMPLE, seed, with_objects=False)
        found += find_unlabelled(part.name, records, part.dataset.classes, detector)
        images += len(records)
    return check_unlabelled(found, images)
