"""Pages of HTML from templates: no network, no second file; and how the program was started."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import platform
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jinja2
import numpy as np
from markupsafe import Markup

from detector.evaluation.shown import number
from detector.report.phrases import sides, signed, span, verdict, without_objects
from detector.report.pictures import LABEL_HEIGHT
from proposals.files import write_whole


def write_rendered(path: Path, template: str, **variables: Any) -> None:
    """Render a template of this folder into a file, which appears whole or not at all.

    Args:
        path: The file; its folder is created if needed.
        template: Name of the template.
        **variables: Its variables; one that it lacks is an error.

    Raises:
        OSError: the file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"number": partial(number, absent="–"), "without_objects": without_objects}
    environment.globals |= {
        "signed": signed,
        "span": span,
        "sides": sides,
        "verdict": verdict,
        "label_height": LABEL_HEIGHT,
    }
    page = environment.get_template(template).render(**variables)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part:
        part.write_text(page, encoding="utf-8", errors="backslashreplace")  # file names need not be valid text


class Script(NamedTuple):
    """A script of a page, and its hash, by which the page allows it and no other."""

    text: Markup
    hash: str


def inline_script(name: str) -> Script:
    """Read a script of this folder to stand in a page."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(Markup(text), f"sha256-{digest}")


def inline_style(name: str) -> Markup:
    """Read a style sheet of this folder to stand in a page."""
    return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))


def command_line() -> str:
    """Return the running command without the machine's folders."""
    return shlex.join([Path(sys.argv[0]).name, *map(without_folders, sys.argv[1:])])


def without_folders(argument: str) -> str:
    """Shorten an absolute path in a command's argument, so that the page does not reveal the machine's folders."""
    key, equals, value = argument.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return argument
    inside = path.is_relative_to(Path.cwd())
    return key + equals + (str(path.relative_to(Path.cwd())) if inside else path.name)


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python, NumPy, OpenCV and further packages."""
    result = {"Python": platform.python_version(), "NumPy": np.__version__, "OpenCV": cv2.__version__}
    for package in packages:
        try:
            result[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            result[package] = "not installed"
    return result
