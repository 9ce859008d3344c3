"""Stands in for the video processor of a model where torchvision is not installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from transformers.utils import PushToHubMixin

from foveate.errors import UnsupportedCall


class Film(PushToHubMixin):
    """The settings of a checkpoint's video processor, which itself needs torchvision.

    The settings are attributes with the same names. `save_pretrained` of the processor writes them
    back. A call with a video raises `UnsupportedCall`.

    Args:
        settings: The saved configuration of the video processor.
    """

    model_input_names = ["pixel_values_videos"]
    valid_kwargs = None
    num_frames: int | None = None
    fps: float | None = None
    _auto_class = None

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = dict(settings)
        for name, value in self._settings.items():
            setattr(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """The settings."""
        return dict(self._settings)

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise UnsupportedCall(
            "The video processors of transformers need torchvision, which is not installed; "
            "install the torchvision that matches your PyTorch, or pass the frames as images."
        )
