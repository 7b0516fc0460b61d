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
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
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

IMAGE_SUFFIXES: tuple[str, ...] = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".jpg_large", ".jpeg_large", ".mpo"),
    *(".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)
"""What is taken for an image in a folder, upper case too. A file named outright may end in anything."""

# Without a list Pillow also tries formats that start other programs (EPS) or that no camera writes.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000")
if PIL.features.check("avif"):  # from Pillow 11.3 on, in most of its builds
    FORMATS += ("AVIF",)
    IMAGE_SUFFIXES += (".avif",)

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


def read_image(source: ImageSource) -> Image:
    """Decode an image, whatever its form and format, to upright RGB.

    Args:
        source: A path, the bytes of an image file, a PIL image, or an array as proposals.selective.colour.to_rgb takes
            it: grey, RGB or RGBA in uint8, uint16, bool, or float in [0, 1].

    Returns:
        [H, W, 3] uint8 RGB, contiguous. It may share memory with an array that has this form already; it is writable
        otherwise.

    Raises:
        ImageError: "PATH: reason" in one line ("<bytes>: reason" for bytes): no such file, a folder, empty, no image,
            cut short, more pixels than Pillow opens (178,956,970 unless PIL.Image.MAX_IMAGE_PIXELS was changed), or
            numbers for which no white is agreed: signed, 32-bit, floating point.
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


@dataclass(frozen=True)
class Listing:
    """What a command was given to work on.

    Attributes:
        paths: the images, each once.
        failures: a line for each source, or folder within one, that gives no image.
        passed_over: files of other kinds in the folders, by suffix.
    """

    paths: tuple[Path, ...]
    failures: tuple[str, ...]
    passed_over: Counter[str]

    @property
    def warnings(self) -> tuple[str, ...]:
        """The files passed over, in a line; none where there is nothing to say."""
        if not self.passed_over:
            return ()
        files = self.passed_over.total()
        return (f"{files} {'file' if files == 1 else 'files'} passed over: {_kinds(self.passed_over)}",)


def list_images(sources: Sequence[str | Path], *, recursive: bool = False) -> Listing:
    """The images that a command was given: files as they are, folders replaced by the images in them.

    A folder's images come sorted. Hidden files and folders (".name") are left out, and links are followed, each folder
    once. A file that is reached twice is listed once, where it came first.

    Args:
        sources: files and folders.
        recursive: look in the folders' sub-folders too.

    Raises:
        ImageError: no source gives an image; the message holds a line for each.
    """
    found: dict[Path, Path] = {}
    resolved = lru_cache(Path.resolve)
    failures: list[str] = []
    passed_over: Counter[str] = Counter()
    for source in map(Path, sources):
        if os.path.isdir(source):  # Path.is_dir raises for a name that is too long
            inside, others, problems = _images_in(source, recursive)
            if not inside and not problems:
                problems = [f"{source}: no images in this folder: {_what_else(source, others, recursive)}"]
            failures += problems
            passed_over += others
        elif os.path.lexists(source):  # a link to nowhere fails as it is read
            inside = [source]
        else:
            inside = []
            failures.append(f"no such file or folder: {source}")
        for path in inside:
            found.setdefault(resolved(path.parent) / path.name, path)
    if failures and not found:
        raise ImageError("\n".join(failures))
    return Listing(tuple(found.values()), tuple(failures), passed_over)


def find_images(sources: Sequence[str | Path], *, recursive: bool = False) -> list[Path]:
    """The paths of list_images, where nothing may fail; what is passed over is a warning.

    Raises:
        ImageError: a source does not exist, or a folder holds no image or cannot be listed.
    """
    listing = list_images(sources, recursive=recursive)
    if listing.failures:
        raise ImageError("\n".join(listing.failures))
    for line in listing.warnings:
        warnings.warn(line, stacklevel=2)
    return list(listing.paths)


def _images_in(folder: Path, recursive: bool) -> tuple[list[Path], Counter[str], list[str]]:
    """The images in a folder, sorted; the number of other files by suffix; a line for each folder not listed."""
    images: list[Path] = []
    others: Counter[str] = Counter()
    problems: list[str] = []
    for file in walk(folder, recursive, problems):
        if file.suffix.lower() in IMAGE_SUFFIXES:
            if os.path.exists(file) and not os.path.isfile(file):  # reading waits for a writer, which may never come
                problems.append(f"{file}: a pipe or a device, not a file")
            else:
                images.append(file)
        elif os.path.isfile(file):
            others[file.suffix.lower()] += 1
    return sorted(images), others, problems


def walk(folder: Path, recursive: bool, problems: list[str]) -> Iterator[Path]:
    """The files in a folder, hidden ones left out, links to nowhere among them.

    Args:
        folder: where to begin.
        recursive: go into sub-folders too, hidden ones left out, linked ones followed, none twice.
        problems: receives a line for each folder that cannot be listed.
    """
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop(0)
        real = place.resolve()
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(place) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(f"{place}: a folder that cannot be listed: {(error.strerror or str(error)).lower()}")
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not os.path.isdir(entry):  # which, unlike the entry itself, raises for no link
                yield place / entry.name
            elif recursive:
                waiting.append(place / entry.name)


def _kinds(suffixes: Counter[str]) -> str:
    """Numbers of files by suffix, the commonest first."""
    most = [f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(8)]
    return ", ".join(most + ["..."] * (len(suffixes) > len(most)))


def _what_else(folder: Path, others: Counter[str], recursive: bool) -> str:
    """What there is in a folder that has no images."""
    entries = list(folder.iterdir())
    hidden = sum(entry.name.startswith(".") for entry in entries)
    folders = 0 if recursive else sum(entry.is_dir() for entry in entries if not entry.name.startswith("."))
    parts = [f"files of other kinds ({_kinds(others)})"] if others else []
    parts += [f"{hidden} hidden"] if hidden else []
    parts += [f"{folders} sub-folders that were not searched (--recursive searches them)"] if folders else []
    return "; ".join(parts) or ("it is empty" if not entries else "neither in its sub-folders")


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
