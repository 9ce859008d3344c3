"""What stands in the video slot of a processor where torchvision is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from transformers.utils import PushToHubMixin

from foveate.errors import UnsupportedCall


class Film(PushToHubMixin):
    """The settings of a checkpoint's video processor, which itself needs torchvision.

    They are attributes of the same names, and `save_pretrained` of the processor writes them back.
    Calling it, as a processor does with a video, raises `UnsupportedCall`.

    Args:
        settings: the saved configuration of the video processor, as a plain dictionary.
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
        """The settings as they were read."""
        return dict(self._settings)

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise UnsupportedCall(
            "The processor can't read videos here, because transformers' video processors need "
            "torchvision; install the torchvision of this PyTorch, or pass the frames as pictures."
        )
