"""A loaded model with what the benchmark and the training need to know about it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foveate.benchmarks.errors import BenchError
from foveate.mini.world import TASKS, WORLD_VERSION, tasks


@dataclass(frozen=True)
class LoadedModel:
    """A model with its processor and sizes.

    Attributes:
        model: the transformers model.
        processor: its processor.
        name: name in results.
        weights: hash of all weights.
        tasks: ids of the tasks that the model has learned.
        size: width and height of its images in pixels.
        patch: width and height of a patch in pixels.
        tokens: visual tokens per image.
        layers: number of decoder layers.
    """

    model: Any = field(repr=False)
    processor: Any = field(repr=False)
    name: str
    weights: str
    tasks: tuple[str, ...]
    size: int
    patch: int
    tokens: int
    layers: int


def inspect_model(model: Any, processor: Any, name: str | None = None) -> LoadedModel:
    """Read the sizes and the model card of a model.

    Raises `BenchError` for weights that were trained on another version of the synthetic tasks:
    their scores cannot be compared.

    Args:
        model: a model with one visual token per patch, such as `foveate.mini("nano")`.
        processor: its processor.
        name: name in results. Default None: from the model card or the folder.
    """
    folder = Path(getattr(model, "name_or_path", "") or "")
    card = _card(folder)
    if card and card.get("world") != WORLD_VERSION:
        raise BenchError(
            f"The model in {str(folder)!r} was trained on world {card.get('world')!r}, this "
            f"installation has world {WORLD_VERSION!r}: train the model again, or install the "
            "foveate version that it was trained with."
        )
    vision = getattr(model.config, "vision_config", None)
    size, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    if not isinstance(size, int) or not isinstance(patch, int):
        raise BenchError(
            f"{type(model).__name__} has no image_size and patch_size in its vision_config: use a "
            "LLaVA-type model such as foveate.mini('nano')."
        )
    exist = tasks(size, patch, medium="image")
    known = tuple(task for task in card.get("kept", card.get("test", ())) if task in exist)
    return LoadedModel(
        model=model,
        processor=processor,
        name=name or card.get("name") or folder.name or type(model).__name__,
        weights=weights_digest(model),
        tasks=known or tuple(task for task in TASKS if task in exist),
        size=size,
        patch=patch,
        tokens=(size // patch) ** 2,
        layers=model.config.get_text_config().num_hidden_layers,
    )


def _card(folder: Path) -> dict[str, Any]:
    path = folder / "card.json"
    if not folder.name or not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        return card if isinstance(card, dict) else {}
    except (OSError, ValueError) as error:
        raise BenchError(f"The model card {str(path)!r} cannot be read: {error}.") from None


def weights_digest(model: Any) -> str:
    """A short hash of all weights: results of two trainings are never mixed."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
