"""The end of a run: what its detector does on val, the complete page, and the commands that come next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from detector.invocation import command
from detector.training.detection_ap import DetectionAP
from detector.training.images import ImageTrainingConfig
from detector.training.loop import Loop
from detector.training.multibox import MultiBoxTrainingConfig
from detector.training.optimisation import TrainingConfig
from detector.training.own_detector import describe_outcome, measure_outcome, save_settings
from detector.training.record import PAGE, Reports
from detector.training.regions import FineTuneConfig


def next_commands(runs: Sequence[TrainingConfig], folders: Sequence[Path]) -> dict[str, str]:
    """List what to do after a training, a description -> a command, or the page; the use of the weights comes last.

    Args:
        runs: The configs of the runs of an ensemble, or of a single one.
        folders: Their folders.
    """
    of_head = isinstance(runs[0], MultiBoxTrainingConfig) and runs[0].train_from == "none"
    pages = shlex.join(str(folder / ("head" if of_head else "") / PAGE) for folder in folders)
    weights = [f"{folder}/best.safetensors" for folder in folders]
    if isinstance(runs[0], ImageTrainingConfig):
        return {"done": pages, "classify": f"{command('classify')} image.jpg --models {shlex.join(weights)}"}
    if isinstance(runs[0], MultiBoxTrainingConfig):
        setting = shlex.quote(f"proposals.multibox.weights={weights[0]}")
        return {"done": pages, "detect": f"{command('detect')} image.jpg {setting}"}
    evaluate, detect = ["--config", f"{folders[0]}/evaluation.yaml"], ["--config", f"{folders[0]}/detector.yaml"]
    if len(folders) > 1:  # without operating points: those of a member are not the ensemble's
        models = f"models=[{','.join(weights)}]"
        evaluate += [f"name={folders[0].name}_ensemble", f"detector.{models}"]
        detect += [models]
    return {
        "done": pages,
        "evaluate": f"{command('eval_map')} {shlex.join(evaluate)}",
        "detect": f"{command('detect')} image.jpg {shlex.join(detect)}",
    }


def finish_regions(config: FineTuneConfig, loop: Loop, measure: DetectionAP, reports: Reports | None) -> None:
    """Measure the finished detector on val and complete the record, unless that was done before the run was resumed."""
    folder, ranks = loop.folder, loop.ranks
    if ranks.from_first(reports is not None and reports.finished):
        return
    if ranks.leads:
        save_settings(config, folder, measure)
    outcome = None
    if not config.operating_points:
        ranks.say("no operating points (operating_points=false)")
    elif not measure.has_objects:
        ranks.say(
            f"no operating points: the {len(measure.dataset)} images of val on which AP is measured have no object"
        )
    else:
        outcome = measure_outcome(config, folder, measure)
    if reports:
        if outcome:
            ranks.say(f"the detector of {folder}/detector.yaml on {len(measure.dataset)} images of val,")
            ranks.say("and precision and recall of what it shows:", *describe_outcome(outcome))
        reports.finish(loop.best, outcome, next_commands([config], [folder]))
