"""`load_image`: every kind of picture comes out upright, RGB and unclipped, or as one sentence."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.assets import PHOTOGRAPH
from foveate.errors import FoveateError, MediaError
from foveate.media import MAX_ASPECT, load_image


def one_sentence(error: BaseException) -> str:
    """The message, checked to be one sentence on one line."""
    text = str(error)
    assert "\n" not in text and text.endswith("."), text
    assert ". " not in text, text
    return text


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels, with next to none in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.fixture
def picture() -> Image.Image:
    """A picture with one colour per quadrant: red, green / blue, yellow."""
    image = Image.new("RGB", (40, 20), "red")
    image.paste("lime", (20, 0, 40, 10))
    image.paste("blue", (0, 10, 20, 20))
    image.paste("yellow", (20, 10, 40, 20))
    return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_formats(kind, picture, tmp_path):
    path = tmp_path / f"picture.{kind.lower()}"
    picture.save(path, quality=95) if kind in ("JPEG", "WEBP") else picture.save(path)
    image = load_image(path)
    assert (image.mode, image.size) == ("RGB", (40, 20))
    difference = np.abs(np.asarray(image, int) - np.asarray(picture, int))
    # The borders between the quadrants blur where colour is stored at half resolution.
    assert np.median(difference) <= 4


def test_sources_agree(picture, tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    picture.save(path)
    data = path.read_bytes()
    stdin = io.TextIOWrapper(io.BytesIO(data))
    monkeypatch.setattr("sys.stdin", stdin)
    with path.open("rb") as file:
        for source in (path, str(path), data, io.BytesIO(data), file, picture, "-"):
            assert np.array_equal(load_image(source), picture)


def test_named_pipe(picture, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    writer = threading.Thread(target=pipe.write_bytes, args=(buffer.getvalue(),))
    writer.start()
    assert np.array_equal(load_image(pipe), picture)
    writer.join()


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.gif").getpixel((4, 4)) == (255, 0, 0)


def test_exif_orientation_is_applied(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned: rotate by 90 degrees clockwise to see it upright.
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    image = load_image(tmp_path / "turned.jpg")
    assert image.size == (20, 40)
    expected = picture.transpose(Image.Transpose.ROTATE_270)
    assert np.median(np.abs(np.asarray(image, int) - np.asarray(expected, int))) <= 4


def test_damaged_exif_is_no_reason_to_refuse(picture, tmp_path):
    damaged = b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff\1\x12"
    picture.save(tmp_path / "exif.jpg", exif=damaged, quality=95)
    assert load_image(tmp_path / "exif.jpg").size == (40, 20)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_on_white(mode, tmp_path):
    image = Image.new(mode, (4, 4), 0)
    image.putpixel((0, 0), (0, 0, 0, 255) if mode == "RGBA" else (0, 255))
    image.save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.getpixel((0, 0)) == (0, 0, 0)
    assert loaded.getpixel((3, 3)) == (255, 255, 255)


def test_half_transparent_is_half_white():
    assert load_image(Image.new("RGBA", (2, 2), (0, 0, 0, 128))).getpixel((0, 0)) == (127,) * 3


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_palette_with_transparency(kind, tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((0, 0), 1)
    image.save(tmp_path / f"p.{kind}", transparency=0)
    loaded = load_image(tmp_path / f"p.{kind}")
    assert loaded.getpixel((0, 0)) == (200, 0, 0)
    assert loaded.getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bits_are_scaled_not_clipped(kind, tmp_path):
    values = np.array([[0, 257, 32768, 65535]], np.uint16).repeat(2, 0)
    Image.fromarray(values).save(tmp_path / f"deep.{kind}")
    loaded = np.asarray(load_image(tmp_path / f"deep.{kind}"))
    assert loaded[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floats_in_the_unit_range_are_grey(tmp_path):
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "f.tiff")
    assert np.asarray(load_image(tmp_path / "f.tiff"))[0, :, 0].tolist() == [0, 128, 255]


def test_floats_of_unknown_white_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 3000.0]], np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(MediaError, match="white is not known") as caught:
        load_image(tmp_path / "f.tiff")
    one_sentence(caught.value)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "YCbCr", "LAB", "HSV"])
def test_other_modes(mode, picture):
    if mode == "LAB":
        image = Image.new("LAB", (40, 20))
    else:
        image = picture.convert(mode)
    try:
        assert load_image(image).mode == "RGB"
    except MediaError as error:
        one_sentence(error)


GREYS = np.arange(256).reshape(16, 16)


def grey_of(source) -> list[int]:
    loaded = np.asarray(load_image(source))
    assert (loaded[..., :1] == loaded).all()
    return loaded[..., 0].ravel().tolist()


@pytest.mark.parametrize("kind", ["i32.tif", "u8.tif", "u8.png"])
def test_bytes_stay_bytes_however_wide_they_are_stored(kind, tmp_path):
    wide = GREYS.astype(np.int32 if "32" in kind else np.uint8)
    Image.fromarray(wide).save(tmp_path / kind)
    assert grey_of(tmp_path / kind) == grey_of(Image.fromarray(wide)) == list(range(256))


@pytest.mark.parametrize("kind", ["png", "tif", "pgm", "jp2"])
def test_dark_pictures_of_16_bits_stay_dark(kind, tmp_path):
    Image.fromarray(GREYS.astype(np.uint16)).save(tmp_path / f"dark.{kind}")
    assert set(grey_of(tmp_path / f"dark.{kind}")) == {0, 1}
    wide = Image.fromarray((GREYS * 257).astype(np.int32))
    assert grey_of(wide) == list(range(256))


@pytest.mark.parametrize("values", [[0, 4095], [0, 1], [-5, 200], [0, 70000]])
def test_whole_numbers_of_unknown_white_are_refused(values, tmp_path):
    Image.fromarray(np.array([values], np.int32)).save(tmp_path / "i.tif")
    for source in (tmp_path / "i.tif", np.array([values])):
        with pytest.raises(MediaError, match="white is not known") as caught:
            load_image(source)
        one_sentence(caught.value)


@pytest.mark.parametrize("mode", ["LA", "La", "RGBa", "PA", "P", "I;16"])
def test_transparency_of_every_mode_lies_on_white(mode, tmp_path):
    if mode == "I;16":
        image = Image.new(mode, (2, 1), 300)
        image.putpixel((1, 0), 0)
        image.save(tmp_path / "a.png", transparency=300)
        image = tmp_path / "a.png"
    elif mode == "P":
        image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
        image.putpixel((1, 0), (0, 0, 0, 255))
        image = image.quantize(4)
        assert "transparency" not in image.info
    elif mode == "PA":
        image = Image.new("PA", (2, 1))
        image.putpixel((1, 0), (0, 255))
    else:
        image = Image.new(mode.upper(), (2, 1))
        image.putpixel((1, 0), (0,) * (len(mode) - 1) + (255,))
        image = image.convert(mode)
    loaded = load_image(image)
    assert loaded.getpixel((0, 0)) == (255, 255, 255)
    assert loaded.getpixel((1, 0)) == (0, 0, 0)


COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)


def test_arrays_and_tensors_are_pictures():
    first = COLOURS.transpose(2, 0, 1)
    alpha = np.concatenate([COLOURS, np.full((5, 7, 1), 255, np.uint8)], 2)
    sources = [COLOURS, first, alpha, COLOURS.astype(int), first.astype(np.uint16) * 257]
    sources += [COLOURS / 255, (COLOURS / 255).astype(np.float32), COLOURS[:, ::-1][:, ::-1]]
    sources += [torch.from_numpy(x.copy()) for x in (COLOURS, first)]
    sources += [torch.from_numpy(first / 255).float().requires_grad_()]
    sources += [torch.from_numpy(first.copy()).int(), torch.from_numpy(alpha.transpose(2, 0, 1))]
    for source in sources:
        assert np.array_equal(load_image(source), COLOURS), (type(source), source.dtype)
    assert grey_of(GREYS) == grey_of(GREYS[None]) == grey_of(torch.tensor(GREYS)[..., None])
    assert grey_of(np.eye(2, dtype=bool)) == grey_of(torch.eye(2)) == [255, 0, 0, 255]
    half = torch.tensor([[0.0, 0.5, 1.0]])
    assert grey_of(half.bfloat16()) == grey_of(half.half()) == [0, 128, 255]
    # As many rows as channels: arrays have channels last, tensors first.
    square = COLOURS[:3, :3]
    assert np.array_equal(load_image(square), square)
    assert np.array_equal(load_image(torch.from_numpy(square.transpose(2, 0, 1))), square)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (COLOURS.astype(np.float32), "white is not known"),
        (torch.randn(3, 4, 4), "white is not known"),
        (np.full((4, 4), np.nan), "white is not known"),
        (COLOURS[None], "(1, 5, 7, 3)"),
        (np.zeros((5, 7, 5), np.uint8), "(5, 7, 5)"),
        (np.zeros(3, np.uint8), "(3,)"),
        (np.zeros((0, 4), np.uint8), "no pixels"),
        (np.zeros((4, 4), complex), "complex"),
        (np.full((4, 4), "a"), "<U1"),
        (np.full((4, 4), None), "object"),
        (torch.empty(3, 4, 4, device="meta"), "meta"),
        ([[0, 1], [1, 0]], "list"),
    ],
)
def test_arrays_of_something_else_are_refused(source, words):
    with pytest.raises(MediaError) as caught:
        load_image(source)
    assert words in one_sentence(caught.value)


def test_cmyk_jpeg_keeps_its_colours(picture, tmp_path):
    picture.convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    loaded = np.asarray(load_image(tmp_path / "print.jpg"), int)
    assert np.median(np.abs(loaded - np.asarray(picture, int))) <= 4


def test_one_pixel_is_a_picture(tmp_path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    assert load_image(tmp_path / "dot.png").size == (1, 1)


def test_strips_up_to_the_limit():
    assert load_image(Image.new("RGB", (10 * MAX_ASPECT, 10))).size == (2000, 10)
    for size in ((20_000, 10), (10, 20_000)):
        with pytest.raises(MediaError, match="200:1") as caught:
            load_image(Image.new("RGB", size))
        one_sentence(caught.value)


def test_the_photograph_of_the_package():
    assert PHOTOGRAPH.stat().st_size <= 120_000
    assert max(load_image(PHOTOGRAPH).size) == 600


def _bad_sources(folder):
    good = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(good, "PNG")
    jpeg = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(jpeg, "JPEG")
    files = {
        "empty.png": b"",
        "text.png": b"This is no picture.\n",
        "page.jpg": b"%PDF-1.7 ...............",
        "phone.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "clip.mp4": b"\0\0\0\x18ftypisom\0\0\0\0isommp42",
        "clip.mkv": b"\x1aE\xdf\xa3" + b"\0" * 20,
        "noise.png": bytes(range(256)),
        "cut.png": good.getvalue()[: len(good.getvalue()) // 2],
        "cut.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "head.png": good.getvalue()[:20],
        "header.png": png_of_size(64, 64),
        "zero.png": png_of_size(0, 5),
        "bomb.png": png_of_size(15_000, 15_000),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    yield from (folder / name for name in files)
    yield folder
    yield folder / "missing.png"
    yield folder / "text.png" / "below_a_file.png"
    yield "https://example.org/cat.png"
    yield "nul\0byte.png"
    yield b""
    yield b"no picture"
    yield io.StringIO("text")
    yield 17
    yield None


def test_bad_input_is_one_sentence(tmp_path, recwarn):
    for source in _bad_sources(tmp_path):
        with pytest.raises(MediaError) as caught:
            load_image(source)
        assert isinstance(caught.value, FoveateError)
        one_sentence(caught.value)
        if not isinstance(source, str) and hasattr(source, "name"):
            assert source.name in str(caught.value)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("text.png", "looks like text"),
        ("page.jpg", "PDF"),
        ("phone.jpg", "HEIC"),
        ("clip.mp4", "video"),
        ("clip.mkv", "video"),
        ("empty.png", "is empty"),
        (".", "is a folder"),
        ("cut.png", "cut short"),
        ("cut.jpg", "cut short"),
        ("bomb.png", "more than 178,956,970 pixels"),
        ("header.png", "cut short"),
    ],
)
def test_the_sentence_names_the_cause(name, words, tmp_path):
    list(_bad_sources(tmp_path))
    with pytest.raises(MediaError, match=words):
        load_image(tmp_path / name)


def test_the_limit_can_be_changed(picture):
    with pytest.raises(MediaError, match="limit of 100"):
        load_image(picture, max_pixels=100)


def test_a_broken_pil_image_is_refused(picture, tmp_path):
    picture.resize((400, 200)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    with pytest.raises(MediaError, match="The given image"):
        load_image(Image.open(io.BytesIO(data[: len(data) // 2])))
