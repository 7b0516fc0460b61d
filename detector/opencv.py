"""Say in one line what is wrong with an OpenCV that cannot be imported, and how to mend it.

Two traps: on slim systems the desktop build lacks libGL; and opencv-python shares its folder with the -headless build that
albumentations brings, so that two versions, or the removal of one, break both.
"""

from __future__ import annotations

from importlib import metadata

BUILDS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


def check_opencv() -> None:
    """Import cv2 and see that it is whole.

    Raises:
        ImportError: one line with the reason and the command that mends it.
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
            version = versions.get("opencv-python-headless") or versions.get("opencv-python", "")
            mend = f"pip install --force-reinstall --no-deps opencv-python-headless=={version}" if version else "install libgl1"
            raise ImportError(
                f"OpenCV cannot be imported ({error}): install the system packages libgl1 and libglib2.0-0, or run: {mend}"
            ) from error
        raise ImportError(f"OpenCV cannot be imported ({error}); installed: {installed}. Run: {_reinstall(versions)}") from error
    if not hasattr(cv2, "warpAffine") or not hasattr(cv2, "imencode"):
        raise ImportError(f"OpenCV is incomplete ({installed} share one folder). Run: {_reinstall(versions)}")


def _reinstall(versions: dict[str, str]) -> str:
    version = versions.get("opencv-python") or next(iter(versions.values()), "")
    return f"pip install --force-reinstall --no-deps opencv-python{f'=={version}' if version else ''}"
