"""Reads evenly spaced frames of a video file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from foveate.errors import MediaError
from foveate.media.images import load_image

SEEK = 4.0
"""Distance in seconds from which seeking to a keyframe is faster than decoding."""


@dataclass(frozen=True)
class Frames:
    """Frames of a video.

    Attributes:
        images: Upright RGB images in order.
        seconds: Time of each frame in seconds.
        rate: Frames per second of the video.
    """

    images: list[Image.Image]
    seconds: list[float]
    rate: float


def read_frames(source: str | os.PathLike[str], count: int) -> Frames:
    """Read `count` evenly spaced frames of a video, or all frames where it has fewer.

    The frames are at the middles of `count` equal parts. Needs PyAV: `pip install
    'foveate[video]'`. Raises `MediaError` where the file does not exist, is damaged or has no
    video.

    Args:
        source: Path of the video.
        count: Number of frames.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise MediaError(f"count={count!r} is not valid; use at least 1 frame.")
    path, name = Path(source).expanduser(), f"{os.fspath(source)!r}"
    if path.is_dir():
        raise MediaError(f"{name} is a folder; pass the path of one video in it.")
    if not path.is_file():
        raise MediaError(f"There is no file {name}; check the path.")
    if not path.stat().st_size:
        raise MediaError(f"{name} is empty; pass a video.")
    with _decoding(path, name) as container:
        if not container.streams.video:
            raise MediaError(f"{name} has no video stream; pass a video.")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        length, rate = _length(container, stream), float(stream.average_rate or 0) or 1.0
        if length is None:
            n = sum(1 for _ in container.decode(stream))
            wanted = {int((i + 0.5) * n / count) for i in range(count)}
            with _decoding(path, name) as again:
                shown = list(_numbered(again, wanted, rate))
        else:
            middles = ((i + 0.5) * length / count for i in range(count))
            shown = list(_at(container, stream, middles))
    if not shown:
        raise MediaError(f"{name} has no frame that can be decoded; get the file again.")
    return Frames([load_image(image) for _, image in shown], [second for second, _ in shown], rate)


@contextmanager
def _decoding(path: Path, name: str) -> Iterator[Any]:
    """An open container; errors of the decoder become `MediaError`."""
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        raise MediaError("Videos need PyAV; pip install 'foveate[video]'.") from None
    try:
        with av.open(str(path)) as container:
            yield container
    except FFmpegError as error:
        reason = (error.strerror or type(error).__name__).rstrip(".")
        raise MediaError(
            f"{name} can't be decoded as a video ({reason}); use another format, or get the file "
            "again."
        ) from None


def _length(container: Any, stream: Any) -> float | None:
    """Length in seconds, None where the file does not say."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _at(
    container: Any, stream: Any, targets: Iterator[float]
) -> Iterator[tuple[float, Image.Image]]:
    """The frame that is shown at each of these ascending times, each frame once."""
    start = float((stream.start_time or 0) * stream.time_base)
    frames, last, given = container.decode(stream), None, None
    ahead = next(frames, None)
    for target in targets:
        if ahead is not None and target - (ahead.time - start) > SEEK:
            # Seek forward to the keyframe before the target.
            container.seek(int((target + start) / stream.time_base), stream=stream)
            frames = container.decode(stream)
            last = ahead = next(frames, None)
        while ahead is not None and ahead.time - start <= target:
            last, ahead = ahead, next(frames, None)
        now = last if last is not None else ahead
        if now is not None and (given is None or now.pts != given):
            given = now.pts
            yield now.time - start, _upright(now)


def _numbered(
    container: Any, numbers: set[int], rate: float
) -> Iterator[tuple[float, Image.Image]]:
    """The frames with these numbers, in a stream that may have no timestamps."""
    for number, frame in enumerate(container.decode(video=0)):
        if number in numbers:
            yield number / rate if frame.time is None else frame.time, _upright(frame)


def _upright(frame: Any) -> Image.Image:
    turn = getattr(frame, "rotation", 0)
    image = frame.to_image()
    return image.rotate(turn, expand=True) if turn else image
