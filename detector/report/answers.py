"""The three answers that people want of an evaluation: which class is worst, why, and which threshold to set."""

from __future__ import annotations

from collections.abc import Mapping

from detector.analysis.causes import ClassCauses
from detector.evaluation.operating_points import OperatingPoint
from detector.report.contents import Report

MISSED = {
    "misplaced": "with a misplaced box (IoU from 0.1)",
    "other class": "taken for another class",
    "low score": "found only at a lower score",
    "unseen": "found at no score",
}
FALSE = {
    "classification": "on an object of another class",
    "localisation": "misplaced",
    "both": "misplaced on an object of another class",
    "duplicate": "on an object that is found already",
    "background": "on no object",
}


def answers(report: Report, *, whole: bool = True) -> dict[str, str]:
    """State the worst class, its causes, and the threshold with the best F1 of all classes, each in a sentence or two.

    Args:
        report: Its `causes` begin with the worst class.
        whole: Whether to add the threshold's interval, if the report has it.

    Returns:
        "Worst class", "Why" and "Threshold" -> text; without those that no detection answers.
    """
    evaluation = report.evaluation
    result = {}
    if report.causes:
        worst = report.causes[0]
        key = list(evaluation.ap)[worst.label]
        ap = evaluation.ap[key]
        objects = _amount(worst.objects, "object")
        result["Worst class"] = f"{display_name(report, worst.label)}, AP {ap:.4f} on {objects}"
        if len(report.evaluation.ap) - evaluation.counts["classes_without_ground_truth"] > 1:
            result["Worst class"] += f" (mean AP of the classes {evaluation.mean_ap:.4f})"
        result["Why"] = _why(report, worst)
    if evaluation.pooled_point:
        result["Threshold"] = _threshold(report, evaluation.pooled_point, whole=whole)
    return result


def cause(causes: ClassCauses) -> str:
    """Name the main reason why objects of a class are missed, with its share of them; "-" where none is missed."""
    missed = causes.objects - causes.found
    if not missed:
        return "-"
    name = max(causes.missed, key=lambda one: causes.missed[one])
    return f"{name} {100 * causes.missed[name] / missed:.0f} %"


def display_name(report: Report, label: int) -> str:
    """Return the display name of a class."""
    key = list(report.evaluation.ap)[label]
    return report.evaluation.names.get(key, key)


def _why(report: Report, causes: ClassCauses) -> str:
    missed, false = causes.objects - causes.found, sum(causes.false.values())
    parts = [f"From score {causes.score:.4f} on, {causes.found} of its {_amount(causes.objects, 'object')} are found"]
    if causes.found:
        parts[0] += f" with precision {causes.precision:.2f}"
    if missed:
        text = _ranked(causes.missed, MISSED)
        if causes.taken_for is not None:
            also = f"{MISSED['other class']} (mostly {display_name(report, causes.taken_for)})"
            text = text.replace(MISSED["other class"], also)
        parts.append(f"Of the {missed} missed, {text}")
    if false:
        parts.append(f"Of the {_amount(false, 'false positive')}, {_ranked(causes.false, FALSE)}")
    return ". ".join(parts) + "."


def _threshold(report: Report, pooled: OperatingPoint, *, whole: bool) -> str:
    text = f"{pooled.score:.4f} for all classes (F1 {pooled.f1:.4f}, precision {pooled.precision:.4f}, "
    text += f"recall {pooled.recall:.4f})"
    found = report.thresholds
    if whole and found and found.pooled and found.pooled.interval:
        low, high = found.pooled.interval
        text += f"; on other images like these the best is between {low:.2f} and {high:.2f}"
    if found and found.pooled:
        for name, wanted, point in (
            ("precision", found.precision, found.pooled.at_precision),
            ("recall", found.recall, found.pooled.at_recall),
        ):
            if wanted is not None and point:
                other = f"recall {point.recall:.4f}" if name == "precision" else f"precision {point.precision:.4f}"
                text += f"; for {name} {wanted:g}: {point.score:.4f} ({other})"
            elif wanted is not None:
                text += f"; no score reaches {name} {wanted:g}"
    return text + '. Each class\'s own is in the column "from score".'


def _ranked(counts: Mapping[str, int], meanings: Mapping[str, str]) -> str:
    some = sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])
    return ", ".join(f"{counts[name]} {meanings[name]}" for name in some)


def _amount(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
