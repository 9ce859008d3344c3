"""Load the model that `--model` names: an embedded one, a folder, or one from the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foveate.errors import (
    FoveateError,
    InvalidParameter,
    UnknownName,
    UnsupportedModel,
    first_sentence,
)

DEFAULT = "nano"


def load_model(name: str, device: str, dtype: str, quiet: bool = False) -> tuple[Any, Any]:
    """`(model, processor)`, the model in eval mode on its device.

    Args:
        name: embedded model, folder, or name on the Hugging Face Hub.
        device: "auto" uses CUDA if it is available.
        dtype: "auto" is bfloat16 on CUDA, else float32.
        quiet: show no progress. Without a terminal none is shown either.
    """
    place = _device(device)
    with _progress(name, quiet):
        return _load(name, place, _dtype(dtype, place))


@contextmanager
def _progress(name: str, quiet: bool) -> Iterator[None]:
    """The progress bars of a download from the Hub, or a spinner while files are read."""
    from foveate.cli.console import waiting, watched
    from foveate.mini.weights_loading import silent_bars

    downloads = "/" in name and not Path(name).expanduser().is_dir()
    if downloads and watched() and not quiet:
        yield
        return
    with silent_bars(), waiting(f"loading {name}", quiet):
        yield


def _load(name: str, place: str, kind: Any) -> tuple[Any, Any]:
    from foveate import mini

    folder = mini.ROLES.get(name, name)
    if folder in mini.available():
        if folder.endswith(mini.TEXT):
            raise UnsupportedModel(
                f"{name} is a CLIP model, not a vision-language model; use nano or image."
            )
        model, processor = mini.load(name, dtype=kind)
        return _on(model, place), processor
    if name == DEFAULT or name in mini.ROLES:
        raise FoveateError(
            "This installation has no embedded model; name one with --model, or make it with "
            "'foveate train nano'."
        )
    config = _config(name)
    try:
        from transformers import AutoModelForImageTextToText

        from foveate.processors import load_processor

        processor = load_processor(name)
        if not hasattr(processor, "image_processor"):
            raise UnsupportedModel(
                f"{name!r} has no image processor; save its processor in the folder of its weights."
            )
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            name, config=config, dtype=kind, trust_remote_code=False, output_loading_info=True
        )
        model, loading = loaded
    except FoveateError:
        raise
    except Exception as error:
        # Broken files raise errors of many types; safetensors has its own.
        raise FoveateError(f"{name!r} can't be loaded: {first_sentence(error)}") from None
    missing = sorted(loading["missing_keys"])
    if missing:
        # transformers would fill them with random numbers and go on.
        raise FoveateError(
            f"{name!r} lacks {len(missing)} weights of its model, {missing[0]} among them; get its "
            "files again."
        )
    return _on(model.eval(), place), processor


def _on(model: Any, place: str) -> Any:
    try:
        return model.to(place)
    except RuntimeError as error:
        raise FoveateError(f"The model doesn't fit on {place}: {first_sentence(error)}") from None


def _config(name: str) -> Any:
    """The configuration of the model, checked to be one that `attach` supports."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    from foveate.families.base import family_of

    _check_path(name)
    try:
        with _quiet_hub():
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if Path(name).expanduser().is_dir():
            raise FoveateError(
                f"The configuration in {name!r} can't be read: {first_sentence(error)}"
            ) from None
        raise UnknownName(
            f"There is no model {name!r} on the Hugging Face Hub, or the Hub can't be reached; "
            "check the name or give a folder."
        ) from None
    if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise UnsupportedModel(
            f"{name!r} is a {config.model_type!r} model, which reads no images; "
            "use a vision-language model such as LLaVA or Qwen2-VL."
        )
    family_of(config)
    return config


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """No log line for each attempt to reach the Hub; the final error names the cause."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _check_path(name: str) -> None:
    from foveate import mini
    from foveate.model_names import is_folder

    if is_folder(name):
        if not (Path(name).expanduser() / "config.json").is_file():
            raise UnknownName(
                f"The folder {name!r} holds no model: it has no config.json; give the folder that "
                "save_pretrained wrote."
            )
    elif "/" not in name:
        # Hub names have the form owner/name, apart from a few old models without vision.
        raise UnknownName.of("embedded model or folder", name, mini.available() or [DEFAULT])


def _device(device: str) -> str:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidParameter(
            "--device cuda: this PyTorch sees no CUDA device; use --device cpu or auto."
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _dtype(dtype: str, device: str) -> Any:
    import torch

    if dtype == "auto":
        return torch.bfloat16 if device == "cuda" else torch.float32
    return getattr(torch, dtype)
