"""Reads images and videos of any common format as upright RGB, and checks them."""

from foveate.media.images import MAX_ASPECT, MAX_PIXELS, load_image
from foveate.media.videos import Frames, read_frames

__all__ = ["MAX_ASPECT", "MAX_PIXELS", "Frames", "load_image", "read_frames"]
