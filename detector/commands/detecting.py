"""The run of detect: images one after another, what is printed and written of each, and the summary.

In: a detector, the files to work on, and what is wanted of them.  Out: tables or JSON lines, files, the number of
failures. A failure costs its own image. What is done is written at once, the files of the whole run at its end, also
where that end is an interruption.
"""

from __future__ import annotations

import errno
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from tqdm import tqdm

from detector.commands.outputs import Outputs
from detector.commands.result_names import Names
from detector.commands.results import (
    Done,
    Item,
    detections_of,
    format_run,
    item_of,
    json_text,
    result_record,
    sha256_of,
)
from detector.commands.run import say
from detector.commands.sources import Source
from detector.data.ground_truth import listed
from detector.data.image import Image, ImageError, ImageSource, read_image
from detector.data.video import Every, is_video, sample_frames
from detector.formats import rounded
from detector.pipeline import Detector, ScoredImage
from detector.progress import progress, span
from proposals.errors import UserError

COMMAND = "detect"
ENDS_ALL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no other image's results can be written either


@dataclass(frozen=True)
class Manner:
    """How a run goes about its images.

    Attributes:
        every: How often a frame of a video is taken.
        lines: Whether standard output gets a line of JSON for each image; tables then go to standard error.
        resume: Whether images are skipped that an earlier run did with the same detector.
        stop: Whether the first failure ends the run.
    """

    every: Every = field(default_factory=lambda: Every(seconds=1))
    lines: bool = False
    resume: bool = False
    stop: bool = False


class _Stopped(Exception):
    """The first failure has ended the run."""


class Run:
    """Detects in images and accounts for them.

    Args:
        detector: The detector.
        outputs: Where results are written; None for nowhere.
        names: Names of the results.
        manner: How.
        settings: Returns the detector's `settings_digest`, when the first image is done.

    Attributes:
        failures: A line for each image that could not be done.
    """

    def __init__(
        self, detector: Detector, outputs: Outputs | None, names: Names, manner: Manner, settings: Callable[[], str]
    ) -> None:
        self.detector, self.outputs, self.names, self.manner = detector, outputs, names, manner
        self.failures: list[str] = []
        self._settings = settings
        self._number = self._done = self._skipped = self._empty = 0
        self._again: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._tables = sys.stderr if manner.lines else sys.stdout

    def __call__(self, batches: Iterable[Iterable[Source | ImageError]], total: int | None) -> None:
        """Detect in batches of files, each several at a time, and say at the end what was done.

        Args:
            batches: The files; a batch ends where the next file is not known yet.
            total: Number of images, for the progress bar; None if it is unknown.

        Raises:
            OSError: The disk is full; what was written before is complete.
        """
        started = time.monotonic()
        options: dict[str, Any] = {"disable": True} if total == 1 else {}
        full = False
        try:
            with suppress(_Stopped), progress(None, COMMAND, total=total, **options) as self._bar:
                for batch in batches:
                    # A generator that is closed at once on an error keeps no thread working.
                    for item, scored in self.detector.score_many(self._todo(batch), _prepare):
                        self._finish(item, scored)
        except OSError as error:
            full = error.errno in ENDS_ALL
            raise
        finally:
            if self.outputs and not full:
                self._write_run_files()
        self._summarise(time.monotonic() - started)

    # ---- which images

    def _todo(self, sources: Iterable[Source | ImageError]) -> Iterator[Item]:
        """Yield the images of files that are to be done; others are skipped or fail here."""
        for source in sources:
            if isinstance(source, ImageError):
                self._fail(Path(str(source)), "", source)
                continue
            try:
                for item in self._items(source):
                    if self._is_new(item):
                        yield item
            except (UserError, OSError) as error:
                self._fail(source.path, str(source.path), error)

    def _items(self, source: Source) -> Iterator[Item]:
        if not is_video(source.path):
            self._number += 1
            yield item_of(source, self.names, self._number)
            return
        relative = source.relative
        content = sha256_of(source.path)
        for frame in sample_frames(source.path, self.manner.every):
            self._number += 1
            ending = f"_{frame.time:010.3f}"
            name = self.names.claim(relative, str(source.path.absolute()), ending)
            still = relative.with_name(f"{PurePath(name).name}.jpg")
            yield Item(
                *(source.path, still, name, self._number),
                time=round(frame.time, 3),
                frame=frame.number,
                pixels=frame.image,
                content=content,
            )

    def _is_new(self, item: Item) -> bool:
        """Whether an image is still to be done; results of one that is done complete what is written now."""
        try:
            if self.outputs is None:
                return True
            self.outputs.check(item)
            return not (self.manner.resume and self._was_done(item, self.outputs))
        except (UserError, OSError) as error:
            self._fail(item.path, item.title, error)
            return False

    def _was_done(self, item: Item, outputs: Outputs) -> bool:
        record = outputs.record_of(item)
        if record is None:
            return False
        reason = ""
        if record.get("settings_sha256") != self._settings():
            reason = "done with another model or settings"
        elif record.get("image_sha256") != item.sha256 or record.get("frame") != item.frame:
            reason = "changed since they were done"
        else:
            try:
                size = int(record["width"]), int(record["height"])
                found = Done(item, size, detections_of(record, self.detector.classes), record)
            except (LookupError, TypeError, ValueError):
                reason = "of which the record is damaged"
        if reason:
            self._again[reason] += 1
            return False
        outputs.write(found, lambda: _pixels(item), again=False)
        self._skipped += 1
        self._count(found)
        if self.manner.lines:
            tqdm.write(json_text(record), file=sys.stdout)
        return True

    # ---- one image

    def _finish(self, item: Item, scored: ScoredImage | UserError | OSError) -> None:
        try:
            if isinstance(scored, Exception):
                raise scored
            found = rounded(scored.detections())
            models = self.detector.config.models
            record = result_record(item, scored, found, self.detector.classes, models, self._settings())
            height, width, _ = scored.image.shape
            done = Done(item, (width, height), found, record)
            if self.outputs:
                self.outputs.write(done, lambda: scored.image)
        except (UserError, OSError) as error:
            self._fail(item.path, item.title, error)
            return
        finally:
            item.pixels = None
        self._done += 1
        self._count(done)
        tqdm.write(format_run(item.title, scored, found), file=self._tables)
        if self.manner.lines:
            tqdm.write(json_text(record), file=sys.stdout)

    def _count(self, found: Done) -> None:
        self._counts.update(one.name for one in found.detections)
        self._empty += not len(found.detections)
        self._bar.update()

    def _fail(self, path: Path, title: str, error: UserError | OSError) -> None:
        """Report a failure; one that no other image can escape ends the run."""
        if isinstance(error, UserError):
            line = str(error) if isinstance(error, ImageError) else f"{title}: {error}"
        elif error.errno in ENDS_ALL and self.outputs:
            raise OSError(error.errno, error.strerror, str(self.outputs.folder)) from error
        else:
            line = f"{title}: the results cannot be written: {str(error.strerror or error).lower()}"
        self.failures.append(line)
        with tqdm.external_write_mode(file=sys.stderr):
            say(COMMAND, line)
        if self.manner.lines:
            tqdm.write(json_text({"image": str(path), "error": line}), file=sys.stdout)
        self._bar.update()
        if self.manner.stop:
            raise _Stopped

    # ---- the whole run

    def _write_run_files(self) -> None:
        try:
            if self.outputs and self._done + self._skipped:
                self.outputs.finish(self.detector.classes)
        except (UserError, OSError) as error:
            self.failures.append(str(error))
            say(COMMAND, str(error))

    def _summarise(self, seconds: float) -> None:
        done, images = self._done + self._skipped, self._number
        rate = f" in {span(seconds)} ({60 * self._done / seconds:.0f} a minute)" if self._done else ""
        where = f"; results in {self.outputs.folder}/" if self.outputs and done else ""
        say(COMMAND, f"{done} of {max(images, done + len(self.failures))} images done{rate}{where}")
        if self._skipped:
            say(COMMAND, f"skipped, for they were done before: {self._skipped}")
        for reason, count in self._again.items():
            say(COMMAND, f"done again: {count} {reason}")
        if done:
            objects = listed([f"{name} {count:,}" for name, count in self._counts.most_common()], 12)
            nothing = f"nothing in {self._empty} of them" if self._empty else ""
            say(COMMAND, "; ".join(part for part in (f"found {objects}" if objects else "", nothing) if part))
        if self.failures and images > 1:
            say(COMMAND, "\n".join(["could not be done:", *(f"  {line}" for line in self.failures)]))
        if self.failures and self.manner.stop:
            say(COMMAND, "stopped at the first failure; --on-error skip goes on")


def _prepare(item: Item) -> tuple[ImageSource, None]:
    """What the detector reads, in its threads; the digest is computed there too."""
    _ = item.sha256
    return (item.path if item.pixels is None else item.pixels), None


def _pixels(item: Item) -> Image:
    return read_image(item.path) if item.pixels is None else item.pixels
