"""What a user reads whose OpenCV is broken: cv2 and the installed wheels are replaced by broken ones."""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType

import pytest

from detector.commands.opencv import check_opencv

BOTH = {"opencv-python": "4.10.0.84", "opencv-python-headless": "4.11.0.86"}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Make `import cv2` fail with a message (or give an empty module), with these wheels installed."""

    def set_up(wheels: dict[str, str], message: str | None) -> None:
        def version(name: str) -> str:
            if name not in wheels:
                raise metadata.PackageNotFoundError(name)
            return wheels[name]

        class Finder:
            @staticmethod
            def find_spec(name: str, *_: object) -> None:
                if name == "cv2":
                    raise ImportError(message)

        monkeypatch.setattr(metadata, "version", version)
        if message is None:
            monkeypatch.setitem(sys.modules, "cv2", ModuleType("cv2"))
        else:
            monkeypatch.delitem(sys.modules, "cv2")
            monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])

    return set_up


def refusal() -> str:
    with pytest.raises(ImportError) as caught:
        check_opencv()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_whole_opencv_passes() -> None:
    check_opencv()


@pytest.mark.parametrize(
    ("wheels", "command"),
    [
        ({"opencv-python": "4.10.0.84"}, "opencv-python-headless==4.10.0.84"),
        (BOTH, "opencv-python-headless==4.11.0.86"),
        ({}, "opencv-python-headless"),
    ],
)
@pytest.mark.parametrize("library", ["libGL.so.1", "libgthread-2.0.so.0", "libglib-2.0.so.0"])
def test_a_slim_system_without_libgl(broken, wheels: dict[str, str], command: str, library: str) -> None:  # type: ignore[no-untyped-def]
    reason = f"{library}: cannot open shared object file: No such file or directory"
    broken(wheels, reason)
    message = refusal()
    assert all(part in message for part in (reason, "libgl1", "libglib2.0-0"))
    assert message.endswith(f"pip install --force-reinstall --no-deps {command}")


@pytest.mark.parametrize(
    ("wheels", "installed", "command"),
    [
        ({}, "no OpenCV wheel", "opencv-python"),
        (BOTH, "opencv-python 4.10.0.84, opencv-python-headless 4.11.0.86", "opencv-python==4.10.0.84"),
        ({"opencv-contrib-python": "4.9"}, "opencv-contrib-python 4.9", "opencv-python==4.9"),
    ],
)
def test_an_import_that_fails_otherwise(  # type: ignore[no-untyped-def]
    broken, wheels: dict[str, str], installed: str, command: str
) -> None:
    broken(wheels, "No module named 'cv2'")
    message = refusal()
    assert f"No module named 'cv2'; installed: {installed})" in message
    assert message.endswith(f"pip install --force-reinstall --no-deps {command}")


def test_what_is_left_after_one_build_was_removed(broken) -> None:  # type: ignore[no-untyped-def]
    broken({"opencv-python": "4.10.0.84"}, None)
    message = refusal()
    assert "installed: opencv-python 4.10.0.84;" in message
    assert message.endswith("pip install --force-reinstall --no-deps opencv-python==4.10.0.84")
