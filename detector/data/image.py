"""The one image loader of the project.

In: a path, or the bytes of an image file.  Out: [H, W, 3] uint8 RGB, or an ImageError that names file and reason.
Pillow decodes. It rejects a file that was cut short, which OpenCV reads in silence with a grey rest, and decodes
baseline JPEG bit for bit as OpenCV does. Everything that a file states about its pixels is handled here:

    EXIF orientation     applied; a damaged EXIF block counts as none
    other metadata       ignored; removed where Pillow fails on it (repair.py)
    alpha, transparency  laid over white; alpha that is 0 everywhere is dropped
    12 or 16 bits        the upper 8 bits: 4095 or 65535 -> 255, grey and colour alike
    WhiteIsZero          inverted, at every depth
    grey, palette, CMYK, LAB  converted; colour profiles are not applied
    several frames       the first
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageChops
import PIL.ImageFile
from numpy.typing import NDArray
from PIL.ExifTags import Base as ExifTag
from PIL.Image import Transpose

from detector.data.repair import BITS, PHOTOMETRIC, WHITE_IS_ZERO, Bare, check_png, without_metadata
from proposals.errors import UserError

Image = NDArray[np.uint8]
"""[H, W, 3] uint8 RGB."""
ImageSource: TypeAlias = str | Path | bytes | PIL.Image.Image | NDArray[Any]
"""What read_image takes: a path, the bytes of a file, a PIL image, or an array as proposals.to_rgb takes it."""

# Without a list Pillow also tries formats that start other programs (EPS) or that no camera writes.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000")
if PIL.features.check("avif"):  # from Pillow 11.3 on, in most of its builds
    FORMATS += ("AVIF",)

UPRIGHT = {
    2 + index: Transpose[name]
    for index, name in enumerate(
        ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"]
    )
}
"""EXIF orientation -> the operation that sets the image upright; 1 and unknown numbers need none."""

EXTRA_SAMPLES, SAMPLE_FORMAT, COMPRESSION, PLANES = 338, 339, 259, 284
"""TIFF tags."""

Result = TypeVar("Result")

# Pillow warns of damaged EXIF and of large images; read_image fixes the first and reads or rejects the second. The
# filter is set once: catch_warnings around each image would race between threads and repeat one-time warnings.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)


class ImageError(UserError):
    """A file that cannot be read as an image; the message names the file and the reason."""


def read_image(source: ImageSource) -> Image:
    """Decode an image, whatever its form and format, to upright RGB.

    Args:
        source: A path, the bytes of an image file, a PIL image, or an array as proposals.selective.colour.to_rgb takes
            it: grey, RGB or RGBA in uint8, uint16, bool, or float in [0, 1].

    Returns:
        [H, W, 3] uint8 RGB, contiguous. It may share memory with an array that has this form already; it is writable
        otherwise.

    Raises:
        ImageError: "PATH: reason" in one line ("<bytes>: reason" for bytes): there is no such file, it is a folder,
            empty, no image or cut short, has more pixels than Pillow opens (178,956,970 unless
            PIL.Image.MAX_IMAGE_PIXELS was changed), or has samples without an agreed white (signed, 32-bit, float).
        ValueError: to_rgb rejects the array.

    >>> read_image("examples/chelsea.jpg").shape
    (300, 451, 3)
    """
    if isinstance(source, str | Path | bytes):
        return _with_opened(source, _pixels)
    if isinstance(source, PIL.Image.Image):
        try:
            return _pixels(source, negative=False)
        except Exception as error:  # a file is decoded here if it was not before
            raise ImageError(f"{getattr(source, 'filename', '') or '<PIL image>'}: {_reason(error)}") from error
    from proposals.selective.colour import to_rgb  # numba takes long to import

    return to_rgb(source)


def read_size(source: str | Path | bytes) -> tuple[int, int]:
    """Read width and height, px, of the image that read_image would return, from the header where possible.

    Raises:
        ImageError: the same as in read_image, except that a file cut short behind its header may pass.
    """
    return _with_opened(source, _upright_size)


def read_orientation(source: str | Path | bytes) -> int:
    """Read EXIF's orientation, which read_image applies; 1 (upright) where there is none or it is damaged.

    Raises:
        ImageError: the same as in read_size.
    """
    return _with_opened(source, lambda image, *_: _orientation(image))


Use = Callable[[PIL.Image.Image, bool], Result]


def _with_opened(source: str | Path | bytes, use: Use[Result]) -> Result:
    try:
        with _open(source) as file:
            try:
                return _used(file, use)
            except (ImageError, PIL.Image.DecompressionBombError):
                raise
            except Exception as error:
                file.seek(0)
                return _retried(without_metadata(file.read()), use, error)
    except Exception as error:  # Pillow raises nearly anything on a damaged file, SyntaxError and struct.error included
        name = "<bytes>" if isinstance(source, bytes) else source
        raise ImageError(f"{name}: {_reason(error)}") from error


def _used(file: BinaryIO, use: Use[Result], negative: bool = False) -> Result:
    with PIL.Image.open(file, formats=FORMATS) as image:
        return use(image, negative)


def _retried(bare: Bare | None, use: Use[Result], error: Exception) -> Result:
    """Try once more without metadata; an error in the pixels is the one of the first attempt."""
    try:
        if bare is not None:
            return _used(io.BytesIO(bare.content), use, bare.negative)
    except ImageError:
        raise
    except Exception as second:
        if bare and bare.kind and isinstance(error, PIL.UnidentifiedImageError) and isinstance(second, type(error)):
            raise ImageError(f"a TIFF of a kind that is not read: {bare.kind}; save it with 8 or 16 bits") from error
    raise error from None


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
        case MemoryError():
            return "not enough memory for its pixels"
        case PIL.Image.DecompressionBombError():
            return f"more than {2 * (PIL.Image.MAX_IMAGE_PIXELS or 0):,} pixels; make it smaller"
        case OSError(strerror=str(text)):  # the system's own words: permission denied, input/output error
            return text.lower()
        case _:
            return f"damaged or cut short ({' '.join(str(error).split()) or type(error).__name__})"


def _orientation(image: PIL.Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTag.Orientation, 1))
    except Exception:  # damaged EXIF does not damage the image
        return 1


def _upright_size(image: PIL.Image.Image, negative: bool) -> tuple[int, int]:
    if image.format == "TIFF":  # Pillow turns TIFF itself, when it loads
        image.load()
    return image.size[::-1] if _orientation(image) in (5, 6, 7, 8) else image.size


def _pixels(image: PIL.Image.Image, negative: bool) -> Image:
    """Return [H, W, 3] uint8 RGB of an opened file; `negative` inverts grey."""
    if image.format == "PNG":
        _check_png(image)
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if image.format == "TIFF":
        _check_tiff(tags)
    key = _transparent_key(image)
    image.load()
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    turn = UPRIGHT.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if is_16_bit:
        return _high_bytes(np.asarray(image), tags, key, negative)
    if image.mode in ("I", "F"):
        raise ImageError("32-bit pixels, for which no white is agreed; save it with 8 or 16 bits")
    if image.mode == "La":
        image = image.convert("LA")
    if negative:
        grey, *alpha = image.split()
        image = PIL.Image.merge(image.mode, [PIL.ImageChops.invert(grey), *alpha])
    if key is not None:
        image.info["transparency"] = key
    if "transparency" in image.info or image.mode.endswith(("A", "a")):
        return _over_white(image, tags)
    return np.array(image.convert("RGB"))


def _high_bytes(levels: NDArray[Any], tags: Mapping[int, Any], key: Any, negative: bool) -> Image:
    """Convert grey levels [H, W] of 16 bits, or of a TIFF's 12, which Pillow itself would cut at 255."""
    grey = (levels >> (4 if tags.get(BITS) == (12,) else 8)).astype(np.uint8)
    if negative or tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = levels == (-1 if key is None else key)
    if not transparent.all():
        grey[transparent] = 255
    return np.repeat(grey[:, :, None], 3, axis=2)


def _over_white(image: PIL.Image.Image, tags: Mapping[int, Any]) -> Image:
    rgba = image.convert("RGBA")
    # Many programs leave the fourth byte 0 everywhere. An animation may begin fully transparent.
    if rgba.getchannel("A").getextrema() == (0, 0) and getattr(image, "n_frames", 1) == 1:
        if tuple(tags.get(EXTRA_SAMPLES, ()))[:1] == (1,):
            raise ImageError("its colours are multiplied by an alpha that is 0 everywhere; save it without alpha")
        return np.array(rgba)[:, :, :3].copy()
    white = PIL.Image.new("RGBA", rgba.size, "white")
    return np.array(PIL.Image.alpha_composite(white, rgba).convert("RGB"))


def _transparent_key(image: PIL.Image.Image) -> Any:
    """Return the transparent colour of a PNG in the levels of Pillow's samples; None where there is none.

    Pillow keeps it in the file's levels: 0-3 for samples of two bits, 0-65535 for 16.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or not isinstance(image, PIL.ImageFile.ImageFile) or not image.tile:
        return key
    raw = image.tile[0].args
    raw = raw[0] if isinstance(raw, tuple) else raw
    if raw in ("L;2", "L;4") and isinstance(key, int):
        return key * (255 // (2 ** int(raw[2:]) - 1))
    if raw == "RGB;16B" and isinstance(key, tuple):
        return tuple(level >> 8 for level in key)
    return key


def _check_png(image: PIL.Image.Image) -> None:
    file = getattr(image, "fp", None)
    if file is None:
        return
    position = file.tell()
    file.seek(0)
    check_png(file.read())
    file.seek(position)


def _check_tiff(tags: Mapping[int, Any]) -> None:
    formats = tags.get(SAMPLE_FORMAT, (1,))
    if set(formats if isinstance(formats, tuple) else (formats,)) - {1, 4}:
        raise ImageError("signed or floating-point samples, for which no white is agreed; save it with 8 or 16 bits")
    if tags.get(PLANES) == 2 and tags.get(COMPRESSION, 1) == 1 and max(tags.get(BITS, (1,))) > 8:
        raise ImageError("a TIFF with the 16-bit samples of each colour by themselves; save it with pixels together")
