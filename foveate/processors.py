"""Loads a checkpoint's own processor, with or without torchvision."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import transformers
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, ProcessorMixin
from transformers.image_processing_base import ImageProcessingMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import is_torchvision_available

from foveate.errors import FoveateError, first_sentence
from foveate.media.film import Film
from foveate.model_names import is_folder

_SLOT = "video_processor"


def load_processor(name: str, **hub: Any) -> Any:
    """The processor of a checkpoint, an instance of its own class.

    transformers can build the processors of most video models only with torchvision, even for
    images. This function builds them for images and text without it. A video then raises
    `UnsupportedCall`. Code from a repository is never run.

    Args:
        name: A folder, or the name of a repository on the Hugging Face Hub.
        **hub: How to get the files: `revision`, `token`, `cache_dir`, `local_files_only`.
    """
    name = str(name)
    from foveate import mini

    if not is_folder(name) and mini.ROLES.get(name, name) in mini.available():
        raise FoveateError(
            f"{name!r} is an embedded model, which comes with its processor; use "
            f"model, processor = foveate.mini({name!r})."
        )
    try:
        return _load(name, hub)
    except FoveateError:
        raise
    except Exception as error:
        # Broken files raise errors of many classes.
        hint = " Run 'foveate doctor'." if "torchvision" in str(error).lower() else ""
        raise FoveateError(
            f"The processor of {name!r} can't be loaded: {first_sentence(error)}{hint}"
        ) from error


def _load(name: str, hub: dict[str, Any]) -> Any:
    saved, _ = ProcessorMixin.get_processor_dict(name, **hub)
    cls = None if is_torchvision_available() else _class_of(name, saved, hub)
    if cls is None or _SLOT not in cls.get_attributes():
        return AutoProcessor.from_pretrained(name, trust_remote_code=False, **hub)
    loaders = {
        "tokenizer": lambda: AutoTokenizer.from_pretrained(name, **hub),
        "image_processor": lambda: AutoImageProcessor.from_pretrained(name, **hub),
        _SLOT: lambda: Film(_video_settings(name, saved, hub)),
    }
    parts = [loaders[slot]() for slot in cls.get_attributes()]
    return _hosting_film(cls).from_args_and_dict(parts, saved)


def _class_of(name: str, saved: dict[str, Any], hub: dict[str, Any]) -> Any:
    """The processor's class, found in the same places as by `AutoProcessor`; None if unnamed."""
    sources = (
        lambda: saved,
        lambda: ImageProcessingMixin.get_image_processor_dict(name, **hub)[0],
        lambda: get_tokenizer_config(name, **hub),
    )
    for source in sources:
        try:
            named = source().get("processor_class")
        except OSError:
            continue
        if named is not None:
            return getattr(transformers, named, None)
    config = transformers.AutoConfig.from_pretrained(name, **hub)
    return PROCESSOR_MAPPING[type(config)] if type(config) in PROCESSOR_MAPPING else None


def _video_settings(name: str, saved: dict[str, Any], hub: dict[str, Any]) -> dict[str, Any]:
    """The saved video processor config. Older checkpoints share the file of the image processor."""
    if _SLOT in saved:
        return saved[_SLOT]
    for file in ("video_preprocessor_config.json", "preprocessor_config.json"):
        try:
            found, _ = ImageProcessingMixin.get_image_processor_dict(
                name, image_processor_filename=file, **hub
            )
        except OSError:
            continue
        return found
    return {}


def _hosting_film(cls: type) -> Any:
    """`cls` with a `Film` as its video processor."""

    class Hosting(cls):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == _SLOT:
                return type(argument)
            return super().check_argument_for_proper_class(argument_name, argument)

    if "num2words" in cls.__init__.__code__.co_names:
        Hosting.__init__ = _without_num2words(cls.__init__)
    # save_pretrained writes the class name.
    Hosting.__name__ = cls.__name__
    Hosting.__qualname__ = cls.__qualname__
    Hosting.__module__ = cls.__module__
    return Hosting


def _without_num2words(init: Any) -> Any:
    """`init` without the check for num2words, which SmolVLM needs for videos only."""
    pretended = {**init.__globals__, "num2words": True}
    made = FunctionType(
        init.__code__, pretended, init.__name__, init.__defaults__, init.__closure__
    )
    made.__kwdefaults__ = init.__kwdefaults__
    return made
