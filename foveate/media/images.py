"""Reads an image from a path, bytes, an open file, standard input or an array."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from foveate.errors import MediaError
from foveate.media.arrays import is_array, picture_of
from foveate.media.colour import to_rgb
from foveate.media.orientation import upright

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "TGA")
"""Allowed decoders. Pillow has others, some of which start external programs (EPS)."""

MAX_PIXELS = 178_956_970
"""Largest number of pixels of an image; Pillow refuses more as a decompression bomb."""

MAX_ASPECT = 200
"""Largest ratio of the longer to the shorter side, as in the processor of Qwen2-VL."""

MAX_BYTES = 1 << 29
"""Largest number of bytes to read from a pipe."""

Source = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | np.ndarray | Tensor


def load_image(
    source: Source, *, max_pixels: int = MAX_PIXELS, max_aspect: float = MAX_ASPECT
) -> Image.Image:
    """The image as an upright RGB image; raises `MediaError` where it can't be read.

    Of an animation the first frame is used. Transparency becomes white. 16 bits become 8 bits.

    Args:
        source: A path, "-" for standard input, the bytes of a file, a binary file, a PIL image, or
            an array or tensor of one image: (H, W), (H, W, C) or (C, H, W) with 8-bit values or
            floats in [0, 1].
        max_pixels: Largest number of pixels.
        max_aspect: Largest ratio of the longer to the shorter side.
    """
    if is_array(source):
        source = picture_of(source, "The given array")
    if isinstance(source, Image.Image):
        with _decoding("The given image"):
            source.load()
        return _finish(source, "The given image", max_pixels, max_aspect)
    name = _name(source)
    with _open(source, name) as file:
        return _finish(_decode(file, name, max_pixels), name, max_pixels, max_aspect)


def _name(source: Any) -> str:
    """Name of the source in error messages."""
    if source == "-":
        return "Standard input"
    if isinstance(source, str | os.PathLike):
        return f"{os.fspath(source)!r}"
    if isinstance(source, bytes | bytearray | memoryview):
        return "The given data"
    if not hasattr(source, "read"):
        raise MediaError(
            f"A value of type {type(source).__name__} is not an image; "
            "pass a path, bytes, a binary file, a PIL image or an array."
        )
    name = getattr(source, "name", None)
    return repr(name) if isinstance(name, str) else "The given file"


def _open(source: Any, name: str) -> IO[bytes]:
    if source == "-":
        return _seekable(sys.stdin.buffer, name)
    if isinstance(source, bytes | bytearray | memoryview):
        return BytesIO(source)
    if isinstance(source, str | os.PathLike):
        return _open_path(source, name)
    return _seekable(source, name)


def _open_path(source: str | os.PathLike[str], name: str) -> IO[bytes]:
    text = os.fspath(source)
    if "://" in text[:12]:
        raise MediaError(f"{name} is a URL; download the file and pass its path.")
    if not text.strip():
        raise MediaError("The path of the image is empty; give the path of a file.")
    path = Path(text).expanduser()
    try:
        file = path.open("rb")
    except IsADirectoryError:
        raise MediaError(f"{name} is a folder; pass the path of one image in it.") from None
    except FileNotFoundError:
        raise MediaError(f"There is no file {name}; check the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{name} can't be opened ({reason}); check the path.") from None
    if file.seekable():
        return file
    with file:
        return _seekable(file, name)


def _seekable(file: IO[bytes], name: str) -> IO[bytes]:
    """The rest of `file` in memory, because decoders need to seek and pipes can't."""
    try:
        data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MediaError(f"{name} can't be read ({error.strerror}); check the file.") from None
    if not isinstance(data, bytes):
        raise MediaError(f"{name} is open as text; open it in binary mode.")
    if len(data) > MAX_BYTES:
        raise MediaError(f"{name} has more than {MAX_BYTES >> 20} MB; pass a single image.")
    return BytesIO(data)


def _decode(file: IO[bytes], name: str, max_pixels: int) -> Image.Image:
    """Pixels of the first frame in their original mode."""
    head = file.read(16)
    if not head:
        raise MediaError(f"{name} is empty; pass an image.")
    file.seek(0)
    Image.init()
    try:
        with _decoding(name):
            image = Image.open(file, formats=[kind for kind in FORMATS if kind in Image.OPEN])
            _check_pixels(image.size, name, max_pixels)
            image.load()
    except UnidentifiedImageError:
        raise MediaError(
            f"{name} is not in a supported image format{_guess(head)}; "
            "use JPEG, PNG, WebP, GIF, TIFF or BMP."
        ) from None
    return image


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Convert errors of decoders to `MediaError`."""
    with warnings.catch_warnings():
        # Pillow warns about sizes, which are checked here, and about harmless metadata.
        warnings.simplefilter("ignore")
        try:
            yield
        except (MediaError, UnidentifiedImageError):
            raise
        except Image.DecompressionBombError:
            raise MediaError(
                f"{name} has more than {MAX_PIXELS:,} pixels; pass a smaller image."
            ) from None
        except Exception as error:
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise MediaError(
                f"{name} is damaged or cut short ({reason}); get the file again."
            ) from None


def _guess(head: bytes) -> str:
    """What a file that is not an image probably is, for the message."""
    if head[4:8] == b"ftyp":
        kind = head[8:12]
        return " (it looks like HEIC)" if kind[:2] in (b"he", b"mi") else " (it looks like a video)"
    if head.startswith(b"%PDF"):
        return " (it looks like a PDF)"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return " (it looks like a video)"
    printable = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return " (it looks like text)" if printable else ""


def _check_pixels(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise MediaError(
            f"{name} has {width} x {height} = {width * height:,} pixels, "
            f"more than the limit of {max_pixels:,}; pass a smaller image."
        )


def _finish(image: Image.Image, name: str, max_pixels: int, max_aspect: float) -> Image.Image:
    width, height = image.size
    if not width or not height:
        raise MediaError(f"{name} has no pixels ({width} x {height}); pass another image.")
    _check_pixels(image.size, name, max_pixels)
    if max(width, height) > max_aspect * min(width, height):
        raise MediaError(
            f"{name} is {width} x {height} pixels, which exceeds the aspect ratio "
            f"{max_aspect:g}:1; crop or split it."
        )
    return to_rgb(upright(image), name, image.format)
