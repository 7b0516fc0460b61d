"""The one image loader: path or bytes -> [H, W, 3] uint8 RGB, or an ImageError that names the file and the reason.

Pillow decodes, once. It refuses a file that was cut short, which OpenCV reads in silence with a grey rest, and its
baseline JPEG is OpenCV's to the bit. What a file says about its pixels is settled here, so that nobody else has to ask:

    EXIF orientation     applied; a damaged EXIF block counts as none
    alpha, transparency  laid over white: what lies under transparent pixels is nobody's picture
    16 bit a channel     the high byte, 65535 -> 255, grey and colour alike
    grey, palette, CMYK  converted; colour profiles are not applied
    several frames       the first
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.ExifTags import Base as ExifTag
from PIL.Image import Transpose

from proposals.errors import UserError

Image = NDArray[np.uint8]
"""[H, W, 3] uint8 RGB."""

IMAGE_SUFFIXES = (".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What find_images takes for an image in a folder, upper case too. A file named outright may end in anything."""

# Without a list Pillow also tries formats that start other programs (EPS) or that no camera writes.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")

UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""EXIF orientation -> what sets the image upright; 1 and unknown numbers need nothing."""

Result = TypeVar("Result")

# Pillow warns of damaged EXIF and of large images; read_image mends the first and reads or refuses the second. Set for
# good, since catch_warnings around each image would race between threads and repeat the one-time warnings of others.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)


class ImageError(UserError):
    """A file that is no readable image; the message names the file and the reason."""


def read_image(source: str | Path | bytes) -> Image:
    """Decode an image file, whatever its format, to upright RGB.

    Args:
        source: a path, or the content of an image file.

    Returns:
        [H, W, 3] uint8 RGB, contiguous and writable.

    Raises:
        ImageError: "PATH: reason" in one line ("<bytes>: reason" for bytes): no such file, a folder, empty, no image,
            cut short, more pixels than Pillow opens (178,956,970 unless PIL.Image.MAX_IMAGE_PIXELS was changed), or
            32-bit pixels.
    """
    return _with_opened(source, _pixels)


def read_size(source: str | Path | bytes) -> tuple[int, int]:
    """Width and height in px of what read_image would return, from the file's header where the format allows.

    Raises:
        ImageError: as read_image, except that a file cut short behind its header may pass.
    """
    return _with_opened(source, _upright_size)


def read_orientation(source: str | Path | bytes) -> int:
    """EXIF's orientation, which read_image applies; 1, upright, where there is none or it is damaged.

    Raises:
        ImageError: as read_size.
    """
    return _with_opened(source, lambda image, *_: _orientation(image))


def find_images(sources: Sequence[str | Path], *, recursive: bool = False) -> list[Path]:
    """The images that a command was given: files as they are, folders replaced by the images in them.

    A folder's images come sorted; hidden files (".name") and other suffixes than IMAGE_SUFFIXES are passed over. A file
    that is reached twice is listed once, where it came first.

    Args:
        sources: files and folders.
        recursive: look in the folders' sub-folders too.

    Raises:
        ImageError: a source does not exist, or a folder holds no image.
    """
    found: dict[Path, None] = {}
    for source in map(Path, sources):
        if source.is_dir():
            inside = _images_in(source, recursive)
            if not inside:
                deeper = "" if recursive else "; its sub-folders were not searched"
                raise ImageError(f"{source}: no images in this folder (looked for {' '.join(IMAGE_SUFFIXES)}{deeper})")
            found |= dict.fromkeys(inside)
        elif source.exists():
            found[source] = None
        else:
            raise ImageError(f"no such file or folder: {source}")
    return list(found)


def _images_in(folder: Path, recursive: bool) -> list[Path]:
    return sorted(
        path
        for path in (folder.rglob("*") if recursive else folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _with_opened(source: str | Path | bytes, use: Callable[[PIL.Image.Image], Result]) -> Result:
    name = "<bytes>" if isinstance(source, bytes) else str(source)
    try:
        with _open(source) as file, PIL.Image.open(file, formats=FORMATS) as image:
            return use(image)
    except (
        Exception
    ) as error:  # a damaged file makes Pillow raise nearly anything, SyntaxError and struct.error included
        raise ImageError(f"{name}: {_reason(error)}") from error


def _open(source: str | Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        if not source:
            raise ImageError("empty, no bytes in it")
        return io.BytesIO(source)
    path = Path(source)
    if path.is_dir():
        raise ImageError("a folder, not an image")
    if path.is_file() and path.stat().st_size == 0:
        raise ImageError("empty, no bytes in it")
    return path.open("rb")


def _reason(error: Exception) -> str:
    match error:
        case ImageError():
            return str(error)
        case FileNotFoundError():
            return "no such file"
        case PIL.UnidentifiedImageError():
            return "not an image in a known format, or damaged at its beginning or directory"
        case PIL.Image.DecompressionBombError():
            return f"more than {2 * (PIL.Image.MAX_IMAGE_PIXELS or 0):,} pixels; make it smaller"
        case OSError(strerror=str(text)):  # the system's own words: permission denied, input/output error
            return text.lower()
        case _:
            return f"damaged or cut short ({' '.join(str(error).split()) or type(error).__name__})"


def _orientation(image: PIL.Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTag.Orientation, 1))
    except Exception:  # a photograph with a damaged note is still a photograph
        return 1


def _upright_size(image: PIL.Image.Image) -> tuple[int, int]:
    if image.format == "TIFF":  # Pillow turns TIFF itself, when it loads
        image.load()
    return image.size[::-1] if _orientation(image) in (5, 6, 7, 8) else image.size


def _pixels(image: PIL.Image.Image) -> Image:
    image.load()
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    turn = UPRIGHT.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if is_16_bit:
        levels = np.asarray(image)  # [H, W]; Pillow's own conversion to RGB would cut at 255
        grey = (levels >> 8).astype(np.uint8)
        grey[levels == image.info.get("transparency", -1)] = 255
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ImageError("32-bit pixels, for which no white is agreed; save it with 8 or 16 bits")
    if "transparency" in image.info or image.mode.endswith(("A", "a")):
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))
