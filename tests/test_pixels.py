"""What a file says of its pixels: depth, polarity, alpha, damaged metadata around them; the files are built here."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from detector.data.image import ImageError, read_image, read_size

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

Array = NDArray[Any]
PICTURE = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
BIG = b"a" * 3_000_000
GARBAGE = [b"", b"x", b"K\0" + bytes(range(20)), np.random.default_rng(1).bytes(300)]


def encoded(image: Array | PIL.Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def grey_rgb(levels: Array) -> Array:
    return np.repeat(np.asarray(levels)[:, :, None], 3, axis=2).astype(np.uint8)


# ---- TIFF


def packed(values: Array, bits: int) -> bytes:
    """Samples without gaps, a row beginning with a byte, the most significant bit first (TIFF 6.0)."""
    rows = []
    for row in values:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return b"".join(rows)


def tiff(
    strips: Sequence[bytes],
    width: int,
    height: int,
    bits: int,
    photometric: int,
    *,
    order: str = "<",
    samples: int = 1,
    more: Sequence[tuple[int, int, int, bytes]] = (),
    big: bool = False,
) -> bytes:
    """A TIFF by its specification; `more` are (tag, type, count, value or what it points to)."""
    word, count, head = ("Q", "Q", 16) if big else ("L", "H", 8)
    room = struct.calcsize(order + word)

    def shorts(*values: int) -> bytes:
        return struct.pack(f"{order}{len(values)}H", *values)

    def longs(*values: int) -> bytes:
        return struct.pack(f"{order}{len(values)}L", *values)

    entries = {
        256: (3, 1, shorts(width)), 257: (3, 1, shorts(height)), 258: (3, samples, shorts(*[bits] * samples)),
        259: (3, 1, shorts(1)), 262: (3, 1, shorts(photometric)), 277: (3, 1, shorts(samples)),
        278: (3, 1, shorts(height)), 273: (4, len(strips), longs(*[0] * len(strips))),
        279: (4, len(strips), longs(*map(len, strips))),
    }  # fmt: skip
    entries |= {tag: (kind, number, value) for tag, kind, number, value in more}
    behind = head + struct.calcsize(order + count) + len(entries) * (4 + 2 * room) + room
    data = behind + sum(len(value) + len(value) % 2 for _, _, value in entries.values() if len(value) > room)
    entries[273] = (4, len(strips), longs(*(data + sum(map(len, strips[:number])) for number in range(len(strips)))))
    directory, values = struct.pack(order + count, len(entries)), b""
    for tag, (kind, number, value) in sorted(entries.items()):
        directory += struct.pack(order + "HH" + word, tag, kind, number)
        if len(value) > room:
            directory += struct.pack(order + word, behind + len(values))
            values += value + b"\0" * (len(value) % 2)
        else:
            directory += value.ljust(room, b"\0")
    magic = struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HL", 42, 8)
    directory += b"\0" * room
    return (b"II" if order == "<" else b"MM") + magic + directory + values + b"".join(strips)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_grey_tiff_of_every_depth_and_both_polarities(bits: int, photometric: int, order: str) -> None:
    for width, big, deflated in ((16, False, False), (7, True, False), (7, False, True)):
        values = np.random.default_rng(bits).integers(0, 2**bits, (5, width))
        values[0, :2] = 0, 2**bits - 1
        levels = values * 255 // (2**bits - 1) if bits <= 8 else values >> (bits - 8)
        expected = grey_rgb(levels if photometric == 1 else 255 - levels)
        data = values.astype(order + "u2").tobytes() if bits == 16 else packed(values, bits)
        more = [(259, 3, 1, struct.pack(order + "H", 8))] if deflated else []
        strips = [zlib.compress(data) if deflated else data]
        content = tiff(strips, width, 5, bits, photometric, order=order, big=big, more=more)
        assert np.array_equal(read_image(content), expected), (width, big, deflated)
        assert read_size(content) == (width, 5)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_tiff_with_the_least_significant_bit_first(bits: int) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (5, 16))
    turned = bytes(int(f"{byte:08b}"[::-1], 2) for byte in packed(values, bits))
    content = tiff([turned], 16, 5, bits, 1, more=[(266, 3, 1, struct.pack("<H", 2))])
    assert np.array_equal(read_image(content), grey_rgb(values * 255 // (2**bits - 1)))


SAMPLES = {
    "signed 8": (8, "i1", 2),
    "signed 16": (16, "<i2", 2),
    "float 16": (16, "<f2", 3),
    "float 32": (32, "<f4", 3),
}


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kind", [*SAMPLES, "unsigned 32", "unsigned 10", "unsigned 14"])
def test_tiff_samples_without_an_agreed_white_are_rejected(kind: str, samples: int) -> None:
    bits, dtype, sample_format = SAMPLES.get(kind, (int(kind[-2:]), "<u4", 1))
    values = np.ones((2, 8 * samples))
    data = packed(values, bits) if bits in (10, 14) else values.astype(dtype).tobytes()
    more = [(339, 3, samples, struct.pack("<H", sample_format) * samples)]
    with pytest.raises(ImageError, match=r"^<bytes>: .*8 or 16 bits"):
        read_image(tiff([data], 8, 2, bits, 1 if samples == 1 else 2, samples=samples, more=more))


@pytest.mark.parametrize("order", ["<", ">"])
def test_colour_planes_of_a_tiff(order: str) -> None:
    height, width, _ = PICTURE.shape
    planes = [PICTURE[:, :, channel].tobytes() for channel in range(3)]
    apart = [(284, 3, 1, struct.pack(order + "H", 2))]
    content = tiff(planes, width, height, 8, 2, order=order, samples=3, more=apart)
    assert np.array_equal(read_image(content), PICTURE)
    words = [PICTURE[:, :, channel].astype(order + "u2").tobytes() for channel in range(3)]
    with pytest.raises(ImageError, match="16-bit"):  # Pillow mixes their bytes up
        read_image(tiff(words, width, height, 16, 2, order=order, samples=3, more=apart))
    deflated = [*apart, (259, 3, 1, struct.pack(order + "H", 8))]
    wide = [zlib.compress((PICTURE[:, :, channel] * 257.0).astype(order + "u2").tobytes()) for channel in range(3)]
    content = tiff(wide, width, height, 16, 2, order=order, samples=3, more=deflated)
    assert np.array_equal(read_image(content), PICTURE)


@pytest.mark.parametrize("photometric", [0, 1, 2])
@pytest.mark.parametrize("meaning", ["unspecified", "multiplied", "alpha"])
def test_a_further_sample_of_a_tiff(meaning: str, photometric: int) -> None:
    number = ("unspecified", "multiplied", "alpha").index(meaning)
    if meaning == "multiplied" and photometric == 0:
        pytest.skip("no program writes grey that is inverted and multiplied")
    alpha = np.random.default_rng(2).integers(0, 256, PICTURE.shape[:2]).astype(np.uint8)
    colours = PICTURE if photometric == 2 else PICTURE[:, :, :1]
    share = alpha[:, :, None] / 255
    expected = colours if meaning == "unspecified" else colours * share + 255 * (1 - share)
    stored = (colours * share).round().astype(np.uint8) if meaning == "multiplied" else colours
    stored = 255 - stored if photometric == 0 else stored
    samples = colours.shape[2] + 1
    more = [(338, 3, 1, struct.pack("<H", number))]
    content = tiff([np.dstack([stored, alpha]).tobytes()], 40, 24, 8, photometric, samples=samples, more=more)
    np.testing.assert_allclose(read_image(content), np.broadcast_to(expected, PICTURE.shape), atol=1.5)
    empty = tiff([np.dstack([stored, 0 * alpha]).tobytes()], 40, 24, 8, photometric, samples=samples, more=more)
    if meaning == "multiplied":
        with pytest.raises(ImageError, match="alpha"):
            read_image(empty)
    else:
        assert np.array_equal(read_image(empty), np.broadcast_to(colours, PICTURE.shape))


def test_lab_and_ycbcr_of_a_tiff() -> None:
    """CIE: adapted to D50, as files store it, sRGB's red is L* 54.3, a* 80.8, b* 69.9."""
    lab = np.array([[[255, 0, 0], [0, 0, 0], [138, 81, 70]]], np.uint8)
    found = read_image(tiff([lab.tobytes()], 3, 1, 8, 8, samples=3))
    np.testing.assert_allclose(found[0], [[255] * 3, [0] * 3, [255, 0, 0]], atol=6)
    ycbcr = np.array([[[128, 128, 128], [76, 85, 255]]], np.uint8)  # BT.601: red
    found = read_image(tiff([ycbcr.tobytes()], 2, 1, 8, 6, samples=3, more=[(530, 3, 2, struct.pack("<HH", 1, 1))]))
    np.testing.assert_allclose(found[0], [[128] * 3, [255, 0, 0]], atol=2)


@pytest.mark.parametrize("big", [False, True])
def test_odd_tags_do_not_cost_a_tiff_its_pixels(big: bool) -> None:
    data = [PICTURE.tobytes()]
    for tag in (254, 263, 270, 271, 274, 282, 305, 306, 315, 330, 333, 700, 33723, 34377, 34665, 34675, 34853, 65000):
        for kind in (0, 1, 2, 3, 5, 7, 12, 16, 99):
            for count, value in ((1, b"\xff" * 4), (3, b"\xfe" * 30), (1_000_000, struct.pack("<L", 99_999_999))):
                content = tiff(data, 40, 24, 8, 2, samples=3, more=[(tag, kind, count, value)], big=big)
                assert np.array_equal(read_image(content), PICTURE), (tag, kind, count)


# ---- PNG


def chunk(name: bytes, data: bytes, *, whole: bool = True) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ (not whole))


def png(
    rows: Array | Sequence[bytes],
    width: int,
    depth: int,
    kind: int,
    *,
    before: bytes = b"",
    after: bytes = b"",
    bad: str = "",
) -> bytes:
    """A PNG by its specification; `bad` names the chunk whose checksum is wrong."""
    head = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head, whole=bad != "IHDR"),
            before,
            chunk(b"IDAT", data, whole=bad != "IDAT"),
            after,
            chunk(b"IEND", b""),
        ]
    )


ROWS = [row.tobytes() for row in PICTURE]
ANCILLARY = [
    "tEXt",
    "zTXt",
    "iTXt",
    "iCCP",
    "gAMA",
    "cHRM",
    "sRGB",
    "pHYs",
    "tIME",
    "bKGD",
    "eXIf",
    "sBIT",
    "hIST",
    "sPLT",
    "acTL",
    "fcTL",
    "fdAT",
    "cICP",
    "mDCV",
    "caBX",
    "abCd",
]


@pytest.mark.parametrize("name", ANCILLARY)
def test_damaged_chunks_beside_the_pixels_of_a_png(name: str) -> None:
    for data in GARBAGE:
        for whole in (True, False):
            odd = chunk(name.encode(), data, whole=whole)
            for place in ({"before": odd}, {"after": odd}):
                content = png(ROWS, 40, 8, 2, **place)  # type: ignore[arg-type]
                assert np.array_equal(read_image(content), PICTURE), (data, whole, place)
                assert read_size(content) == (40, 24)


@pytest.mark.parametrize(
    "large",
    [
        chunk(b"tEXt", b"K\0" + BIG),
        chunk(b"zTXt", b"K\0\0" + zlib.compress(BIG)),
        chunk(b"iTXt", b"K\0\1\0\0\0" + zlib.compress(BIG)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(BIG)),
        chunk(b"iCCP", b"K\0\0" + zlib.compress(BIG)),
        b"".join(chunk(b"zTXt", b"K%d\0\0" % number + zlib.compress(BIG[:900_000])) for number in range(80)),
    ],
    ids=["tEXt", "zTXt", "iTXt", "XMP", "iCCP", "many zTXt"],
)
def test_large_chunks_beside_the_pixels_of_a_png(large: bytes) -> None:
    for content in (png(ROWS, 40, 8, 2, before=large), png(ROWS, 40, 8, 2, after=large)):
        assert np.array_equal(read_image(content), PICTURE)


def test_a_damaged_chunk_does_not_cost_a_png_its_orientation() -> None:
    table = PIL.Image.Exif()
    table[0x0112] = 6
    turned = chunk(b"eXIf", table.tobytes()[6:])
    content = png(ROWS, 40, 8, 2, before=chunk(b"tEXt", b"K\0x", whole=False) + turned)
    assert np.array_equal(read_image(content), np.rot90(PICTURE, -1))
    assert read_size(content) == (24, 40)


def test_a_png_that_ends_behind_its_pixels() -> None:
    for ending in (b"", struct.pack(">I", 900) + b"tEXtabc"):
        assert np.array_equal(read_image(png(ROWS, 40, 8, 2)[:-12] + ending), PICTURE)


@pytest.mark.parametrize("bad", ["IHDR", "IDAT", "PLTE", "tRNS"])
def test_damage_of_what_makes_the_picture_is_an_error(bad: str) -> None:
    palette = chunk(b"PLTE", bytes(range(24)), whole=bad != "PLTE") + chunk(b"tRNS", bytes(8), whole=bad != "tRNS")
    with pytest.raises(ImageError, match=r"^<bytes>: .*damaged"):
        read_image(png([bytes(range(8))], 8, 8, 3, before=palette, bad=bad))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_transparent_colours_of_a_png_of_few_bits(depth: int) -> None:
    count = 2**depth
    values = np.arange(16)[None] % count
    rows = [packed(values, depth)]
    levels = values * 255 // (count - 1)
    assert np.array_equal(read_image(png(rows, 16, depth, 0)), grey_rgb(levels))
    for key in (0, 1, count - 1):
        content = png(rows, 16, depth, 0, before=chunk(b"tRNS", struct.pack(">H", key)))
        assert np.array_equal(read_image(content), grey_rgb(np.where(values == key, 255, levels))), key
    palette = np.random.default_rng(depth).integers(0, 256, (count, 3), dtype=np.uint8)
    alpha = np.random.default_rng(9).integers(0, 256, (count, 1), dtype=np.uint8)
    before = chunk(b"PLTE", palette.tobytes()) + chunk(b"tRNS", alpha.tobytes())
    expected = palette * (alpha / 255) + 255 * (1 - alpha / 255)
    np.testing.assert_allclose(read_image(png(rows, 16, depth, 3, before=before)), expected[values], atol=0.51)


def test_transparent_colour_of_a_png_of_16_bits() -> None:
    colours = np.array([[[700, 40000, 1], [700, 41000, 1], [0, 0, 0]]], ">u2")
    key = chunk(b"tRNS", colours[0, 0].tobytes())
    found = read_image(png([colours.tobytes()], 3, 16, 2, before=key))
    assert found[0].tolist() == [[255] * 3, [2, 160, 0], [0, 0, 0]]
    grey = np.array([[[700, 0], [40000, 65535]]], ">u2")
    assert read_image(png([grey.tobytes()], 2, 16, 4))[0].tolist() == [[255] * 3, [156] * 3]


# ---- alpha that says nothing


def bitmap(alpha: int, *, compression: int = 0, masks: bytes = b"", header: int = 40, rest: bytes = b"") -> bytes:
    """A Windows bitmap of 32 bits a pixel."""
    pixels = np.dstack([PICTURE[::-1, :, ::-1], np.full(PICTURE.shape[:2], alpha, np.uint8)]).tobytes()
    info = struct.pack("<IiiHHIIiiII", header, 40, 24, 1, 32, compression, len(pixels), 0, 0, 0, 0) + rest
    start = 14 + len(info) + len(masks)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + masks + pixels


MASKS = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
V4 = MASKS + struct.pack("<I", 0xFF000000) + b"\0" * 52
RGBA = np.dstack([PICTURE, np.zeros((24, 40), np.uint8)])
INDEXED = PIL.Image.fromarray(np.arange(8, dtype=np.uint8)[None])
INDEXED.putpalette(bytes(range(24)))
EMPTY_ALPHA = {
    "BMP, fourth byte": (bitmap(0), PICTURE),
    "BMP, masks": (bitmap(0, compression=3, masks=MASKS), PICTURE),
    "BMP, alpha mask": (bitmap(0, compression=3, header=108, rest=V4), PICTURE),
    "BMP, alpha mask, opaque": (bitmap(255, compression=3, header=108, rest=V4), PICTURE),
    "PNG": (encoded(RGBA, "PNG"), PICTURE),
    "PNG, grey": (encoded(PIL.Image.fromarray(RGBA[:, :, 2:], "LA"), "PNG"), grey_rgb(PICTURE[:, :, 2])),
    "PNG, palette": (encoded(INDEXED, "PNG", transparency=bytes(8)), np.arange(24).reshape(1, 8, 3)),
    "PNG, 16 bits": (encoded(np.full((2, 3), 700, np.uint16), "PNG", transparency=700), np.full((2, 3, 3), 2)),
    "PNG, key": (encoded(np.full((2, 3), 70, np.uint8), "PNG", transparency=70), np.full((2, 3, 3), 70)),
    "TIFF": (encoded(RGBA, "TIFF"), PICTURE),
    "WebP": (encoded(RGBA, "WEBP", lossless=True, exact=True), PICTURE),
    "JPEG 2000": (encoded(RGBA, "JPEG2000", irreversible=False), PICTURE),
}


@pytest.mark.parametrize("kind", EMPTY_ALPHA)
def test_alpha_that_is_0_everywhere_says_nothing(kind: str) -> None:
    content, expected = EMPTY_ALPHA[kind]
    assert np.array_equal(read_image(content), expected)


def test_an_animation_may_begin_with_nothing() -> None:
    """Its first frame is transparent, and the colours under it are nobody's picture."""
    frames = [PIL.Image.fromarray(RGBA), PIL.Image.fromarray(PICTURE)]
    content = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert (read_image(content) == 255).all()


# ---- other formats


def test_damaged_segments_of_a_jpeg() -> None:
    plain = encoded(PICTURE, "JPEG")
    expected = read_image(plain)
    beginnings = (
        *(b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x05", b"ICC_PROFILE\0\1", b"MPF\0II*\0\x08\0\0\0\x03\0"),
        *(b"Photoshop 3.0\x008BIM\x04\x04\0\0\0", b"JFIF", b"JFIF\0\1", b"Adobe", b"http://ns.adobe.com/xap/1.0/\0"),
    )
    for marker in (*range(0xE0, 0xF0), 0xFE):
        for data in (beginning + ending for beginning in beginnings for ending in (b"", bytes(range(200, 256)))):
            content = plain[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + plain[2:]
            if marker == 0xEE and len(data) > 12:
                continue  # says how the colours are stored
            assert np.array_equal(read_image(content), expected), (hex(marker), data)


def test_metadata_of_a_webp() -> None:
    content = encoded(PICTURE, "WEBP", lossless=True, icc_profile=b"x" * 99, xmp=b"y" * 100)
    assert content[-108:-104] == b"XMP "
    large = content[:-108] + b"XMP " + struct.pack("<I", len(BIG)) + BIG
    large = large[:4] + struct.pack("<I", len(large) - 8) + large[8:]
    for damaged in (large, content[:-2], content[:-104] + struct.pack("<I", 4000) + content[-100:]):
        assert np.array_equal(read_image(damaged), PICTURE)


def test_boxes_of_a_jpeg_2000() -> None:
    content = encoded(PICTURE, "JPEG2000", irreversible=False)
    at = content.index(b"jp2c") - 4
    for name in (b"uuid", b"xml ", b"jp2i", b"free"):
        for data in (*GARBAGE, BIG):
            box = struct.pack(">I", len(data) + 8) + name + data
            assert np.array_equal(read_image(content[:at] + box + content[at:]), PICTURE), (name, len(data))
    start = content.index(b"jp2h") - 4
    (length,) = struct.unpack_from(">I", content, start)
    for name, data in ((b"res ", b"x"), (b"colr", b""), (b"colr", b"\2\0\0" + GARBAGE[3])):
        box = struct.pack(">I", len(data) + 8) + name + data
        header = struct.pack(">I", length + len(box)) + content[start + 4 : start + length] + box
        assert np.array_equal(read_image(content[:start] + header + content[start + length :]), PICTURE), (name, data)


def test_extensions_of_a_gif() -> None:
    indexed = PIL.Image.fromarray(PICTURE[:, :, 0] % 4)
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    content = encoded(indexed, "GIF")
    at = content.index(b",\0\0\0\0")
    for odd in (
        b"!\xfe\3ab\xff\0",
        b"!\xff\1a\0",
        b"!\xff\x0bNETSCAPE2.0\0",
        b"!\xfe" + (b"\xff" + b"a" * 255) * 4000 + b"\0",
    ):
        assert np.array_equal(read_image(content[:at] + odd + content[at:]), read_image(content)), odd[:20]


@pytest.mark.parametrize(("top", "width"), [(15, 1), (255, 1), (4095, 2), (65535, 2)])
def test_netpbm_of_any_white(top: int, width: int) -> None:
    values = np.random.default_rng(top).integers(0, top + 1, (3, 5, 3))
    for magic, some in ((b"P5", values[:, :, 0]), (b"P6", values)):
        content = magic + f" 5 3 {top}\n".encode() + some.astype(f">u{width}").tobytes()
        expected = some * (255 / top) if some.ndim == 3 else grey_rgb(some * (255 / top))
        np.testing.assert_allclose(read_image(content), expected, atol=1)


def test_no_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(PIL.Image.Image, "convert", full)
    with pytest.raises(ImageError, match="memory"):
        read_image(encoded(PICTURE, "PNG"))
