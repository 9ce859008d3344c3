"""Frames out of real files, and one sentence for what is no video."""

import sys

import av
import numpy as np
import pytest

from foveate.errors import MediaError
from foveate.media import read_frames
from tests.media.filming import film, numbers


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_frames_come_from_the_middles_of_equal_parts(tmp_path, kind):
    read = read_frames(film(tmp_path / f"a.{kind}", 30), 5)
    assert numbers(read.images) == [3, 9, 15, 21, 27]
    assert read.seconds == pytest.approx([0.3, 0.9, 1.5, 2.1, 2.7], abs=0.01)
    assert read.rate == pytest.approx(10)
    assert read.images[0].mode == "RGB" and read.images[0].size == (48, 32)


def test_jumping_over_keyframes_finds_the_same_frames(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", 60, rate=2)
    far = read_frames(path, 4)
    assert numbers(far.images) == [7, 22, 37, 52]
    monkeypatch.setattr("foveate.media.videos.SEEK", 1e9)
    walked = read_frames(path, 4)
    assert walked.seconds == far.seconds and numbers(walked.images) == numbers(far.images)


def test_a_short_video_gives_every_frame_once(tmp_path):
    read = read_frames(film(tmp_path / "a.mp4", 3), 8)
    assert numbers(read.images) == [0, 1, 2]
    assert len(read_frames(tmp_path / "a.mp4", 1).images) == 1


def test_a_stream_without_a_length_is_counted(tmp_path):
    read = read_frames(film(tmp_path / "a.m4v", 30), 3)
    assert numbers(read.images) == [5, 15, 25]
    assert read.seconds == pytest.approx([n / read.rate for n in (5, 15, 25)], abs=0.05)


def test_a_phone_that_was_held_upright(tmp_path):
    """The file says that its frames are to be turned by 90 degrees to the right."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        left_is_bright = np.zeros((32, 64, 3), np.uint8)
        left_is_bright[:, :32] = 255
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(left_is_bright, "rgb24")))
        container.mux(stream.encode())
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    turn = (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    data[matrix : matrix + 36] = b"".join(x.to_bytes(4, "big", signed=True) for x in turn)
    path.write_bytes(data)
    (image,) = read_frames(path, 1).images
    assert image.size == (32, 64)
    pixels = np.asarray(image).mean(-1)
    assert pixels[:28].mean() > 200 and pixels[36:].mean() < 50


def test_what_is_no_video_says_so(tmp_path):
    def fails(path, words, count=2):
        with pytest.raises(MediaError, match=words) as caught:
            read_frames(path, count)
        assert "\n" not in str(caught.value)

    whole = film(tmp_path / "a.mp4", 20)
    fails(tmp_path / "no.mp4", "no file")
    fails(tmp_path, "is a folder")
    fails(whole, "count=0", 0)
    (tmp_path / "empty.mp4").write_bytes(b"")
    fails(tmp_path / "empty.mp4", "is empty")
    (tmp_path / "text.mp4").write_text("not a film " * 50)
    fails(tmp_path / "text.mp4", "decoded as a video")
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:700])
    fails(tmp_path / "cut.mp4", "decoded as a video|no frame")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    fails(tmp_path / "sound.wav", "no video stream")


def test_without_pyav_it_says_what_to_install(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", 3)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MediaError, match="foveate\\[video\\]"):
        read_frames(path, 2)
