"""Small videos that tell the number of each frame by its brightness."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from PIL import Image

STEP = 4


def film(path: Path, frames: int, rate: int = 10, size: tuple[int, int] = (32, 48)) -> Path:
    """A video of which frame i is grey of `STEP` * i, with a keyframe at every 12th."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt, stream.gop_size = "yuv420p", 12
        stream.bit_rate = 2_000_000
        for i in range(frames):
            grey = np.full((*size, 3), STEP * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path


def numbers(images: list[Image.Image]) -> list[int]:
    """Which frame each one was."""
    return [round(float(np.asarray(image).mean()) / STEP) for image in images]
