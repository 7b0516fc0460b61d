"""The image loader: what it returns for every kind of file, and how it refuses the others."""

import io
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from detector.data.image import ImageError, read_image, read_size
from detector.data.listing import list_images

# pytest takes down the filters that detector.data.image sets; test_nothing_on_stderr looks at them without it.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def noise(height=24, width=40, channels=3, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(seed).integers(0, top, (height, width, channels), dtype=dtype)


def smooth(height=48, width=80):
    """A gradient, on which lossy formats stay close to the original."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 5, x + y], axis=2).astype(np.uint8)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    (image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation):
    table = PIL.Image.Exif()
    table[0x0112] = orientation
    return table.tobytes()


# ---- what is read


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_return_the_pixels(kind, tmp_path):
    image = noise()
    path = tmp_path / "picture"  # the content decides, not the name
    path.write_bytes(encoded(image, kind))
    for source in (path, str(path), path.read_bytes()):
        result = read_image(source)
        assert np.array_equal(result, image)
        assert result.dtype == np.uint8
        assert result.flags.c_contiguous
        assert result.flags.writeable


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
def test_jpeg_equals_opencv(options):
    content = encoded(smooth(), "JPEG", **options)
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert np.array_equal(read_image(content), expected)


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
    9: lambda stored: stored,  # no such orientation
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation(orientation, kind):
    stored = noise(5, 9)
    content = encoded(stored, kind, exif=exif(orientation))
    expected = UPRIGHT[orientation](stored)
    assert np.array_equal(read_image(content), expected)
    assert read_size(content) == expected.shape[1::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_jpeg_equals_opencv(orientation):
    content = encoded(smooth(), "JPEG", exif=exif(orientation))
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert np.array_equal(read_image(content), expected)
    assert read_size(content) == expected.shape[1::-1]


def test_exif_orientation_of_16_bit_grey():
    stored = noise(5, 9, 1, np.uint16)[:, :, 0]
    result = read_image(encoded(stored, "PNG", exif=exif(6)))
    assert np.array_equal(result[:, :, 1], np.rot90(stored >> 8, -1))


def test_damaged_exif_counts_as_none():
    plain = encoded(smooth(), "JPEG")
    damaged = encoded(smooth(), "JPEG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\x00\x12\x01garbage")
    assert damaged != plain
    assert np.array_equal(read_image(damaged), read_image(plain))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_keeps_its_range(kind):
    ramp = np.linspace(0, 65535, 512).astype(np.uint16).reshape(16, 32)
    result = read_image(encoded(ramp, kind))
    assert np.array_equal(result, np.repeat((ramp // 256)[:, :, None], 3, axis=2))
    assert len(np.unique(result)) == 256


def test_16_bit_grey_big_endian():
    ramp = np.linspace(0, 65535, 512).astype(">u2").reshape(16, 32)
    assert np.array_equal(read_image(encoded(PIL.Image.fromarray(ramp), "TIFF"))[:, :, 0], ramp // 256)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_colour_keeps_its_range(suffix):
    image = noise(dtype=np.uint16)
    content = cv2.imencode(suffix, image[:, :, ::-1])[1].tobytes()
    assert np.array_equal(read_image(content), image // 256)


def test_transparent_key_of_16_bit_grey_is_white():
    levels = np.array([[700, 40000]], dtype=np.uint16)
    assert read_image(encoded(levels, "PNG", transparency=700))[0].tolist() == [[255] * 3, [40000 // 256] * 3]


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_1_bit(mode):
    grey = noise()[:, :, 0] if mode == "L" else (noise()[:, :, 0] > 127) * np.uint8(255)
    content = encoded(PIL.Image.fromarray(grey).convert(mode), "PNG")
    assert np.array_equal(read_image(content), np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF"])
def test_palette(kind):
    indexed = PIL.Image.fromarray(noise()[:, :, 0] % 4)
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]])
    assert np.array_equal(read_image(encoded(indexed, kind)), colours[noise()[:, :, 0] % 4])


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_alpha_lies_over_white(kind, options):
    rgba = noise(channels=4)
    rgba[:4, :, 3] = 0
    rgba[4:8, :, 3] = 255
    result = read_image(encoded(rgba, kind, **options))
    share = rgba[:, :, 3:] / 255
    expected = rgba[:, :, :3] * share + 255 * (1 - share)
    assert np.abs(result - expected).max() <= 1
    assert (result[:4] == 255).all()
    assert np.array_equal(result[4:8], rgba[4:8, :, :3])


def test_grey_with_alpha_lies_over_white():
    pixels = np.array([[[200, 0], [200, 255], [0, 128]]], dtype=np.uint8)
    result = read_image(encoded(PIL.Image.fromarray(pixels, "LA"), "PNG"))
    assert result[0].tolist() == [[255] * 3, [200] * 3, [127] * 3]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_transparent_palette_colour_is_white(transparency):
    indexed = PIL.Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    indexed.putpalette([10, 20, 30, 200, 0, 0])
    assert read_image(encoded(indexed, "PNG", transparency=transparency))[0].tolist() == [[10, 20, 30], [255] * 3]


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (1, 2, 3)), ("L", 7)])
def test_transparent_key_colour_is_white(mode, colour):
    image = PIL.Image.new(mode, (2, 1), colour)
    image.putpixel((1, 0), (50, 50, 50) if mode == "RGB" else 50)
    assert read_image(encoded(image, "PNG", transparency=colour))[0].tolist() == [[255] * 3, [50] * 3]


def test_cmyk():
    inks = np.array(
        [[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 128], [100, 50, 0, 30]]], dtype=np.uint8
    )
    expected = (255.0 - inks[:, :, :3]) * (255.0 - inks[:, :, 3:]) / 255
    assert np.abs(read_image(encoded(PIL.Image.fromarray(inks, "CMYK"), "TIFF")) - expected).max() <= 1
    blocks = np.repeat(np.repeat(inks, 16, axis=0), 16, axis=1)  # whole JPEG blocks, so that loss stays small
    jpeg = read_image(encoded(PIL.Image.fromarray(blocks, "CMYK"), "JPEG", quality=100))
    assert np.abs(jpeg - np.repeat(np.repeat(expected, 16, axis=0), 16, axis=1)).max() <= 4


def test_first_frame_of_an_animation():
    frames = [PIL.Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read_image(content) == (255, 0, 0)).all()


def test_unicode_name(tmp_path):
    path = tmp_path / "слон 象 é.png"
    path.write_bytes(encoded(noise(), "PNG"))
    assert np.array_equal(read_image(path), noise())


# ---- what is refused

TEN_FORMATS = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("WEBP", {}),
    ("GIF", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("PPM", {}),
    ("JPEG2000", {}),
]


@pytest.mark.parametrize(("kind", "options"), TEN_FORMATS)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.02])
def test_cut_short(kind, options, share, tmp_path):
    content = encoded(noise(160, 200), kind, **options)
    path = tmp_path / "half.jpg"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "damaged" in message
    assert "\n" not in message
    assert "BytesIO" not in message


def test_half_a_jpeg_is_named():
    content = encoded(noise(160, 200), "JPEG")
    with pytest.raises(ImageError, match=r"^<bytes>: .*truncated"):
        read_image(content[: len(content) // 2])


def test_refusals(tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("Not a photograph at all.")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    float_pixels = tmp_path / "float.tif"
    float_pixels.write_bytes(encoded(PIL.Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF"))
    reasons = {
        tmp_path / "missing.jpg": "no such file",
        tmp_path: "a folder, not an image",
        text: "not an image in a known format, or damaged at its beginning or directory",
        empty: "empty, no bytes in it",
        float_pixels: "signed or floating-point samples, for which no white is agreed; save it with 8 or 16 bits",
    }
    for path, reason in reasons.items():
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert str(caught.value) == f"{path}: {reason}"
    with pytest.raises(ImageError, match=r"^<bytes>: empty"):
        read_image(b"")
    with pytest.raises(ImageError, match=r"^<bytes>: not an image"):
        read_image(b"\x00" * 100)
    with pytest.raises(ImageError, match="damaged"):
        read_image("name\x00with zero.jpg")
    with pytest.raises(ImageError, match="no such file"):
        read_size(tmp_path / "missing.jpg")


def test_postscript_is_not_run():
    with pytest.raises(ImageError, match="not an image in a known format"):
        read_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")


def test_too_many_pixels(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match=r"^<bytes>: .*200 pixels"):
        read_image(encoded(noise(20, 20), "PNG"))


def test_nothing_on_stderr():
    program = (
        "import sys, PIL.Image; from detector.data.image import read_image\n"
        "PIL.Image.MAX_IMAGE_PIXELS = 2000\n"
        "for _ in range(2): print(read_image(bytes.fromhex(sys.stdin.readline())).shape)"
    )
    large = encoded(smooth(), "PNG")  # 3,840 pixels: Pillow would warn
    damaged = encoded(smooth(20, 20), "JPEG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\x00\x12\x01garbage")
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program],
        input=f"{large.hex()}\n{damaged.hex()}\n",
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert done.stdout == "(48, 80, 3)\n(20, 20, 3)\n"
    assert "PIL" not in done.stderr


# ---- photographs


@pytest.mark.data
def test_photographs_equal_opencv(data_dir):
    for path in list_images([data_dir / "voc12" / "JPEGImages"]).paths[:60]:
        image = read_image(path)
        assert np.array_equal(image, cv2.imread(str(path))[:, :, ::-1])
        assert read_size(path) == image.shape[1::-1]
