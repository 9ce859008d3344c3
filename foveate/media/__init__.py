"""Real pictures in, whatever their format: decoded, checked, always RGB."""

from foveate.media.images import MAX_ASPECT, MAX_PIXELS, load_image

__all__ = ["MAX_ASPECT", "MAX_PIXELS", "load_image"]
