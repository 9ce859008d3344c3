"""The model under test: what it is, which world it was trained on, which tasks it knows."""

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
    """A model with its processor. `size` and `patch` are pixels, `tokens` counts per picture."""

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
    """What the bench must know of a model; its card is looked for beside its weights.

    Raises `BenchError` for weights of another version of the world: scores on pictures that a model
    was not trained for can't be compared with any others.
    """
    folder = Path(getattr(model, "name_or_path", "") or "")
    card = _card(folder)
    if card and card.get("world") != WORLD_VERSION:
        raise BenchError(
            f"The model card in {str(folder)!r} speaks of world {card.get('world')!r}, this "
            f"installation draws world {WORLD_VERSION!r}; train the model anew, or install the "
            "foveate that belongs to it."
        )
    vision = getattr(model.config, "vision_config", None)
    size, patch = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    if not isinstance(size, int) or not isinstance(patch, int):
        raise BenchError(
            f"{type(model).__name__} says no picture size and patch size in its vision_config; "
            "use a model of the LLaVA line, such as foveate.mini('nano')."
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
        raise BenchError(f"The model card {str(path)!r} can't be read: {error}.") from None


def weights_digest(model: Any) -> str:
    """A short hash over all weights, so that results of two trainings are never mixed."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
