"""Explain in one line why OpenCV cannot be imported.

Two traps: on slim systems the desktop build lacks libGL; and opencv-python shares its folder with the -headless build
that albumentations brings, so that two versions, or the removal of one, break both.
"""

from __future__ import annotations

from importlib import metadata

BUILDS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


def check_opencv() -> None:
    """Import cv2 and check that it is complete.

    Raises:
        ImportError: One line with the reason and the command that fixes it.
    """
    versions = {}
    for build in BUILDS:
        try:
            versions[build] = metadata.version(build)
        except metadata.PackageNotFoundError:
            continue
    installed = ", ".join(f"{build} {version}" for build, version in versions.items()) or "no OpenCV wheel"
    try:
        import cv2
    except ImportError as error:
        if "libGL" in str(error) or "libgthread" in str(error) or "libglib" in str(error):
            raise ImportError(
                f"OpenCV cannot be imported ({error}): install the system packages libgl1 and libglib2.0-0, "
                f"or run: {_reinstall('opencv-python-headless', versions)}"
            ) from error
        raise ImportError(
            f"OpenCV cannot be imported ({error}; installed: {installed}). Run: {_reinstall('opencv-python', versions)}"
        ) from error
    if not hasattr(cv2, "resize") or not hasattr(cv2, "imencode"):
        raise ImportError(
            f"OpenCV is incomplete (installed: {installed}; its builds share one folder and removing one breaks the "
            f"others). Run: {_reinstall('opencv-python', versions)}"
        )


def _reinstall(build: str, versions: dict[str, str]) -> str:
    """Return the command that installs a build: its installed version, else that of another build."""
    version = versions.get(build) or next(iter(versions.values()), "")
    return f"pip install --force-reinstall --no-deps {build}{f'=={version}' if version else ''}"
