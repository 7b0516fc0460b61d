"""The one image loader: path or bytes -> [H, W, 3] uint8 RGB, or an ImageError that names the file and the reason.

Pillow decodes, once. It refuses a file that was cut short, which OpenCV reads in silence with a grey rest, and its
baseline JPEG is OpenCV's to the bit. What a file says about its pixels is settled here, so that nobody else has to ask:

    EXIF orientation     applied; a damaged EXIF block counts as none
    other metadata       text, profiles, odd tags, however large or damaged: left out where Pillow stumbles over them
    alpha, transparency  laid over white: what lies under transparent pixels is nobody's picture; alpha that is 0
                         everywhere says nothing and is dropped
    12, 16 bit a sample  the upper 8, 4095 or 65535 -> 255, grey and colour alike
    WhiteIsZero          turned, whatever the depth
    grey, palette, CMYK, LAB  converted; colour profiles are not applied
    several frames       the first
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
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

EXTRA_SAMPLES, SAMPLE_FORMAT, COMPRESSION, PLANES = 338, 339, 259, 284
"""TIFF tags."""

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
            numbers for which no white is agreed: signed, 32-bit, floating point.
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


def _with_opened(source: str | Path | bytes, use: Callable[[PIL.Image.Image, bool], Result]) -> Result:
    name = "<bytes>" if isinstance(source, bytes) else str(source)
    try:
        with _open(source) as file:
            try:
                return _used(file, use)
            except (ImageError, PIL.Image.DecompressionBombError):
                raise
            except Exception as error:
                file.seek(0)
                return _used_bare(without_metadata(file.read()), use, error)
    except (
        Exception
    ) as error:  # a damaged file makes Pillow raise nearly anything, SyntaxError and struct.error included
        raise ImageError(f"{name}: {_reason(error)}") from error


def _used(file: BinaryIO, use: Callable[[PIL.Image.Image, bool], Result], negative: bool = False) -> Result:
    with PIL.Image.open(file, formats=FORMATS) as image:
        return use(image, negative)


def _used_bare(bare: Bare | None, use: Callable[[PIL.Image.Image, bool], Result], error: Exception) -> Result:
    """Try once more without what stands beside the pixels; what is wrong with these was said the first time."""
    if bare is None:
        raise error
    try:
        return _used(io.BytesIO(bare.content), use, bare.negative)
    except ImageError:
        raise
    except PIL.UnidentifiedImageError:
        if bare.kind and isinstance(error, PIL.UnidentifiedImageError):
            raise ImageError(f"a TIFF of a kind that is not read: {bare.kind}; save it with 8 or 16 bits") from error
        raise error from None
    except Exception:
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
    except Exception:  # a photograph with a damaged note is still a photograph
        return 1


def _upright_size(image: PIL.Image.Image, negative: bool) -> tuple[int, int]:
    if image.format == "TIFF":  # Pillow turns TIFF itself, when it loads
        image.load()
    return image.size[::-1] if _orientation(image) in (5, 6, 7, 8) else image.size


def _pixels(image: PIL.Image.Image, negative: bool) -> Image:
    """[H, W, 3] uint8 RGB of an opened file; `negative`: grey is to be turned."""
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
    """Grey levels [H, W] of 16 bits, or of 12 in a TIFF that says so; Pillow itself would cut them at 255."""
    grey = (levels >> (4 if tags.get(BITS) == (12,) else 8)).astype(np.uint8)
    if negative or tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = levels == (-1 if key is None else key)
    if not transparent.all():
        grey[transparent] = 255
    return np.repeat(grey[:, :, None], 3, axis=2)


def _over_white(image: PIL.Image.Image, tags: Mapping[int, Any]) -> Image:
    rgba = image.convert("RGBA")
    # Alpha that is 0 everywhere says nothing: many programs leave the fourth byte empty. An animation may begin so.
    if rgba.getchannel("A").getextrema() == (0, 0) and getattr(image, "n_frames", 1) == 1:
        if tuple(tags.get(EXTRA_SAMPLES, ()))[:1] == (1,):
            raise ImageError("its colours are multiplied by an alpha that is 0 everywhere; save it without alpha")
        return np.array(rgba)[:, :, :3].copy()
    white = PIL.Image.new("RGBA", rgba.size, "white")
    return np.array(PIL.Image.alpha_composite(white, rgba).convert("RGB"))


def _transparent_key(image: PIL.Image.Image) -> Any:
    """The transparent colour of a PNG in the units of the levels that Pillow makes of its samples; None: there is none.

    Pillow leaves it in those of the file: 0-3 where samples have two bits, 0-65535 where they have 16.
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
