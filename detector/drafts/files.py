"""Write a config and its lists of images, and replace nothing but what was written here and never edited.

A config ends with a line that has the digest of what stands above it, and a list belongs to the config that names it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from proposals.errors import UserError
from proposals.files import write_whole

MARK = "# googlenet-rcnn new-config "


class DraftError(UserError):
    """A config or list cannot be written; the message names the file."""


def signed(text: str) -> str:
    """Return a config with its last line."""
    return f"{text}{MARK}{_digest(text)}\n"


def check_output(path: Path, lists: Mapping[Path, str]) -> None:
    """Check that a config and lists of images may be written.

    Args:
        path: The config.
        lists: Texts of the lists, by their files.

    Raises:
        DraftError: one is a folder, exists and was not written here, or was edited since; or its folder is missing.
    """
    own = _written_here(path)
    known = path.read_text(encoding="utf-8") if own else ""
    for file in (path, *lists):
        if not file.parent.is_dir():
            raise DraftError(f"{file}: there is no folder {file.parent}; make it first")
        if not os.access(file.parent, os.W_OK):
            raise DraftError(f"{file.parent}: cannot be written; name another place with --output FILE.yaml")
        if file.is_dir():
            raise DraftError(f"{file}: a folder; name a file with --output FILE.yaml")
    if path.exists() and not own:
        raise DraftError(f"{path}: exists, and was not written by new-config or was edited since; --output OTHER.yaml")
    for file, text in lists.items():
        if file.exists() and str(file) not in known and file.read_bytes() != text.encode():
            raise DraftError(f"{file}: exists and belongs to no config of new-config; --output OTHER.yaml")


def write_draft(path: Path, text: str, lists: Mapping[Path, str]) -> None:
    """Write lists of images and the config that names them; check_output has allowed it.

    Raises:
        OSError: a file cannot be written.
    """
    for file, names in lists.items():
        with write_whole(file) as temporary:
            temporary.write_bytes(names.encode(errors="surrogateescape"))
    with write_whole(path) as temporary:
        temporary.write_text(signed(text), encoding="utf-8")


def _written_here(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    found = re.fullmatch(rf"(.*\n){re.escape(MARK)}([0-9a-f]+)\n", text, re.DOTALL)
    return found is not None and found[2] == _digest(found[1])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
