"""Rewrite image files without their metadata, where a decoder fails on metadata although the pixels are intact.

In: the content of an image file.  Out: the same image with nothing else in the file. Pixel data are copied and never
changed, so that damage in them stays damage. Intact EXIF is kept, because it turns the image.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
JP2_HEADER = (b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef")

TIFF_TYPES = {1: "B", 3: "H", 4: "L", 5: "LL", 7: "B", 16: "Q"}
"""TIFF's types of values that describe pixels -> struct's letters for one value."""
TIFF_TAGS = {*range(256, 260), 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, *range(322, 326)}
TIFF_TAGS |= {332, 338, 339, 347, *range(512, 516), 519, 520, 521, *range(529, 533)}
"""TIFF's tags that describe the pixels."""
WIDTH, BITS, PHOTOMETRIC, SAMPLES = 256, 258, 262, 277
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1


class Bare(NamedTuple):
    """An image file without metadata.

    Attributes:
        content: Bytes of the file.
        negative: Whether its grey is stored inverted.
        kind: Description of the samples, for a message; may be empty.
    """

    content: bytes
    negative: bool = False
    kind: str = ""


def without_metadata(content: bytes) -> Bare | None:
    """Return the image in a file without metadata; None where the format is another or the file is too damaged."""
    try:
        for begins, rewrite in _REWRITES:
            if begins(content):
                return rewrite(content)
    except (struct.error, IndexError, KeyError, ValueError, OverflowError):
        pass
    return None


def check_png(content: bytes) -> None:
    """Check the checksums of a PNG's image chunks, which Pillow ignores.

    Raises:
        ValueError: a checksum is wrong.
    """
    for name, data, whole in _png_chunks(content):
        if name in PNG_PIXELS and not whole:
            raise ValueError(f"wrong checksum of {len(data):,} bytes in {name.decode()}")


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield name, data and whether the checksum is right; a last chunk that is cut short is left out."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        if at + 12 + length > len(content):
            return
        name, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", content, at + 8 + length)
        yield name, data, checksum == zlib.crc32(data, zlib.crc32(name))
        if name == b"IEND":
            return
        at += 12 + length


def _bare_png(content: bytes) -> Bare:
    parts = [PNG_SIGNATURE]
    for name, data, whole in _png_chunks(content):
        if name in PNG_PIXELS or (name == b"eXIf" and whole):
            checksum = zlib.crc32(data, zlib.crc32(name)) ^ (not whole)
            parts.append(struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum))
    return Bare(b"".join(parts))


def _bare_jpeg(content: bytes) -> Bare:
    parts, at = [content[:2]], 2
    while content[at + 1] != 0xDA:  # up to the scan
        if content[at] != 0xFF:
            raise ValueError("no marker")
        (length,) = struct.unpack_from(">H", content, at + 2)
        marker, data = content[at + 1], content[at + 4 : at + 2 + length]
        says_colours = (marker == 0xE0 and data[:5] == b"JFIF\0" and len(data) >= 14) or (
            marker == 0xEE and data[:5] == b"Adobe" and len(data) >= 12
        )
        turns = marker == 0xE1 and data[:6] == b"Exif\0\0"
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or says_colours or turns:
            parts.append(content[at : at + 2 + length])
        at += 2 + length
    return Bare(b"".join([*parts, content[at:]]))


def _bare_webp(content: bytes) -> Bare:
    chunks, at = [], 12
    while at + 8 <= len(content):
        name, (length,) = content[at : at + 4], struct.unpack_from("<I", content, at + 4)
        data = content[at + 8 : at + 8 + length]
        if name in (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            flags = bytes([data[0] & ~0x2C]) + data[1:] if name == b"VP8X" else data  # no profile, no EXIF, no XMP
            chunks.append(name + struct.pack("<I", length) + flags + b"\0" * (len(data) % 2))
        at += 8 + length + length % 2
    body = b"WEBP" + b"".join(chunks)
    return Bare(b"RIFF" + struct.pack("<I", len(body)) + body)


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and data of JPEG 2000's boxes; length 0 means the rest, 1 that the length follows the name."""
    at = 0
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        head = 16 if length == 1 else 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", content, at + 8)
        end = at + length if length else len(content)
        yield content[at + 4 : at + 8], content[at + head : end]
        at = max(end, at + head)


def _box(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data) + 8) + name + data


def _bare_jpeg2000(content: bytes) -> Bare:
    parts = []
    for name, data in _boxes(content):
        if name == b"jp2h":
            kept = [(inner, what) for inner, what in _boxes(data) if inner in JP2_HEADER]
            # A colour space by number; a profile is not applied.
            kept = [(inner, what) for inner, what in kept if inner != b"colr" or (what[:1] == b"\1" and len(what) >= 7)]
            parts.append(_box(name, b"".join(_box(*inner) for inner in kept)))
        elif name in (b"jP  ", b"ftyp", b"jp2c"):
            parts.append(_box(name, data))
    return Bare(b"".join(parts))


def _bare_gif(content: bytes) -> Bare:
    at = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0)
    parts = [content[:at]]
    while content[at] == 0x21:  # extensions before the first frame
        end = at + 2
        while content[end]:
            end += 1 + content[end]
        if content[at + 1] == 0xF9:  # transparency
            parts.append(content[at : end + 1])
        at = end + 1
    return Bare(b"".join([*parts, content[at:]]))


def _bare_tiff(content: bytes) -> Bare:
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2) == (43,)
    word, count = ("Q", "Q") if big else ("L", "H")
    (first,) = struct.unpack_from(order + word, content, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count, content, first)
    tags: dict[int, tuple[int, list[int]]] = {}
    for number in range(min(entries, 4096)):
        at = first + struct.calcsize(order + count) + number * (4 + 2 * struct.calcsize(order + word))
        tag, kind, length = struct.unpack_from(order + "HH" + word, content, at)
        if tag not in TIFF_TAGS or kind not in TIFF_TYPES or tag in tags:
            continue
        letters = TIFF_TYPES[kind]
        size, at = struct.calcsize(order + letters) * length, at + 4 + struct.calcsize(order + word)
        if size > struct.calcsize(order + word):
            (at,) = struct.unpack_from(order + word, content, at)
        if at + size <= len(content):
            values = struct.unpack_from(f"{order}{length * len(letters)}{letters[0]}", content, at)
            tags[tag] = kind, list(values)
    if WIDTH not in tags:
        return Bare(content)

    def stated(tag: int, default: int) -> int:
        values = tags.get(tag, (0, []))[1]
        return values[0] if values else default

    bits, samples, photometric = stated(BITS, 1), stated(SAMPLES, 1), stated(PHOTOMETRIC, WHITE_IS_ZERO)
    negative = photometric == WHITE_IS_ZERO and (bits > 8 or samples > 1)
    if negative:  # Pillow knows those kinds as BlackIsZero only
        tags[PHOTOMETRIC] = 3, [BLACK_IS_ZERO]
    written = "<" if bits == 12 else order  # 12-bit samples have no byte order, and Pillow knows one
    kind_text = (
        f"{samples} sample{'s' * (samples > 1)} of {bits} bits a pixel, photometric interpretation {photometric}"
    )
    return Bare(_with_directory(content, tags, written), negative, kind_text)


def _with_directory(content: bytes, tags: dict[int, tuple[int, list[int]]], order: str) -> bytes:
    """Return a TIFF with this as its only directory, behind the data; never a BigTIFF, which Pillow reads in part."""
    start = len(content) + len(content) % 2
    behind = start + 2 + len(tags) * 12 + 4
    directory, values_behind = [struct.pack(order + "H", len(tags))], b""
    for tag, (kind, values) in sorted(tags.items()):
        kind = 4 if kind == 16 else kind
        letters = TIFF_TYPES[kind]
        data = struct.pack(f"{order}{len(values)}{letters[0]}", *values)
        field = data.ljust(4, b"\0")
        if len(data) > 4:
            field = struct.pack(order + "L", behind + len(values_behind))
            values_behind += data + b"\0" * (len(data) % 2)
        directory.append(struct.pack(order + "HHL", tag, kind, len(values) // len(letters)) + field)
    directory.append(bytes(4))
    magic = (b"II" if order == "<" else b"MM") + struct.pack(order + "HL", 42, start)
    return magic + content[8:].ljust(start - 8, b"\0") + b"".join(directory) + values_behind


_REWRITES: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Bare]], ...] = (
    (lambda content: content.startswith(PNG_SIGNATURE), _bare_png),
    (lambda content: content.startswith(b"\xff\xd8"), _bare_jpeg),
    (lambda content: content[:4] == b"RIFF" and content[8:12] == b"WEBP", _bare_webp),
    (lambda content: content.startswith(JP2_SIGNATURE), _bare_jpeg2000),
    (lambda content: content[:4] == b"GIF8", _bare_gif),
    (lambda content: content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _bare_tiff),
)
