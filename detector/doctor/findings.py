"""What the doctor may find: the stable ids with their levels and advice, and one finding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

EXAMPLES = 5
"""Most examples that a finding keeps."""


class Level(Enum):
    """Weight of a finding: an error breaks the training or teaches wrong things, a warning costs accuracy."""

    error = "error"
    warning = "warning"
    note = "note"


@dataclass(frozen=True)
class Rule:
    """What an id stands for.

    Attributes:
        level: Level of its findings, unless a check says otherwise.
        advice: What to do, one sentence.
    """

    level: Level
    advice: str


RULES: dict[str, Rule] = {
    "data.unreadable": Rule(Level.error, "Fix what the message names; the other checks of this part need its labels."),
    "data.repaired": Rule(
        Level.warning, "Look at the first file; what it counts is not trained on as it was labelled."
    ),
    "data.remark": Rule(Level.warning, "Check that the labels were read as they were meant."),
    "images.absent": Rule(Level.error, "Put the files back or delete their labels; such images are left out."),
    "images.unreadable": Rule(Level.error, "Export the images again or delete them; they are left out of a training."),
    "images.resized": Rule(
        Level.error,
        "Label the images as they are, or set size_mismatch: turn where EXIF explains it, skip to leave them out.",
    ),
    "images.turned": Rule(Level.note, "Make sure that the boxes were drawn on the upright image, as it is read here."),
    "images.empty": Rule(
        Level.note, "Make sure that they show no object: everything in them is learned as background."
    ),
    "images.double": Rule(Level.note, "Delete the copies, or keep them with the same labels; they count twice."),
    "images.near": Rule(Level.note, "Nothing needs doing; new-config keeps such images in one part when it splits."),
    "splits.leak": Rule(Level.error, "Delete the image from one of the parts: what was trained on measures nothing."),
    "splits.near": Rule(Level.warning, "Move such images into one part: figures on near-copies are too high."),
    "boxes.inverted": Rule(Level.error, "Exchange the corners in the label file; such boxes are left out."),
    "boxes.flat": Rule(Level.warning, "Delete these slips of the mouse, or draw the boxes anew."),
    "boxes.outside": Rule(Level.warning, "Look whether labels and images belong together; the boxes are cut."),
    "boxes.double": Rule(Level.warning, "Delete one of the two boxes: the second can only be missed."),
    "boxes.whole": Rule(
        Level.note, "Make sure that they are no placeholders; images of one object each are a case for task=images."
    ),
    "boxes.small": Rule(
        Level.note, "Cut such images into tiles, or take sharper ones: little is left of these objects."
    ),
    "classes.absent": Rule(Level.error, "Label objects of these classes for train, or take the names out of the list."),
    "classes.scarce": Rule(Level.error, "Label more objects or leave the class out: fewer than 10 teach nothing."),
    "classes.few": Rule(Level.warning, "Label more objects; AP of a class grows fastest up to some 50 objects."),
    "classes.few_images": Rule(Level.warning, "Label other images too: objects of few images look too much alike."),
    "classes.one_part": Rule(Level.warning, "Move images between the parts: without objects in val no AP is measured."),
    "classes.alike": Rule(Level.error, "Give the class one name: names that differ in case or blanks are two classes."),
    "proposals.reach": Rule(
        Level.note, "Expect no AP above the share that is reached; MultiBox trained on your boxes may reach more."
    ),
    "labels.missing": Rule(Level.warning, "Look at these places and add the boxes that were forgotten."),
}
"""Every id that a finding may have."""

UNCOUNTED = ("data.unreadable", "data.remark")
"""Ids whose text is a message of its own."""


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor found.

    Attributes:
        id: A key of RULES.
        level: Its weight here.
        count: Number of cases.
        text: What was found, one clause.
        examples: The first cases, at most EXAMPLES.
    """

    id: str
    level: Level
    count: int
    text: str
    examples: tuple[str, ...]

    @property
    def title(self) -> str:
        """What was found, with the number of cases."""
        return self.text if self.id in UNCOUNTED else f"{self.text}: {self.count:,}"

    @property
    def advice(self) -> str:
        """What to do."""
        return RULES[self.id].advice


def finding(
    rule: str, text: str, examples: Sequence[str], *, count: int | None = None, level: Level | None = None
) -> list[Finding]:
    """Make the finding of an id; none where there are no cases.

    Args:
        rule: The id.
        text: What was found.
        examples: The cases, or the first of them.
        count: Number of cases; that of the examples where it is left out.
        level: Another level than the rule's.
    """
    count = len(examples) if count is None else count
    if not count:
        return []
    return [Finding(rule, level or RULES[rule].level, count, text, tuple(examples[:EXAMPLES]))]


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Join the findings that say the same of several parts; errors first, and within a level in the order of RULES."""
    joined: dict[tuple[str, Level, str], Finding] = {}
    for one in findings:
        key = (one.id, one.level, one.text)
        before = joined.get(key)
        if before is None:
            joined[key] = one
        else:
            examples = (*before.examples, *one.examples)[:EXAMPLES]
            joined[key] = replace(before, count=before.count + one.count, examples=examples)
    levels, ids = list(Level), list(RULES)
    return sorted(joined.values(), key=lambda one: (levels.index(one.level), ids.index(one.id)))


def at(part: str, text: str) -> str:
    """Name the part of an example, where there are parts."""
    return f"{part}: {text}" if part else text
