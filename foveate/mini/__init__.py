"""The embedded models and the procedural world that they are trained on.

>>> import foveate
>>> model, processor = foveate.mini("image")
"""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

from foveate.errors import UnknownName

WEIGHTS = Path(__file__).parent / "weights"

# What a model is for, and which one is the best that this installation has for it.
ROLES = {"image": "mini-image", "clip": "nano-text"}

# Folders of this ending hold a text tower beside the vision tower of the model before it.
TEXT = "-text"


def available() -> list[str]:
    """Names of the embedded models whose weights are in this installation."""
    return sorted(p.parent.name for p in WEIGHTS.glob("*/model.safetensors"))


def load(name: str = "image", dtype=None):
    """An embedded model and its processor, offline: ``(model, processor)``, model in eval mode.

    ``name`` is a model's name or its role: "image" is a VLM, "clip" a `CLIPModel` with the same
    vision tower. ``dtype`` is a torch dtype; float32 by default, whatever the weights are
    stored in.
    """
    known = available()
    folder = ROLES.get(name, name) if isinstance(name, str) else None
    if folder not in known:
        roles = [role for role, model in ROLES.items() if model in known]
        raise UnknownName.of("embedded model", name, [*known, *roles])
    if folder.endswith(TEXT):
        from .clip import load_clip

        return load_clip(WEIGHTS / folder, dtype)
    from .weights_loading import load_folder

    return load_folder(WEIGHTS / folder, dtype)


def model_card(name: str) -> dict:
    """The model card of an embedded model or a role, empty for any other name."""
    if not isinstance(name, str):
        return {}
    path = WEIGHTS / ROLES.get(name, name) / "card.json"
    known = ROLES.get(name, name) in available()
    return json.loads(path.read_text(encoding="utf-8")) if known and path.is_file() else {}


def __getattr__(name: str):
    """`foveate.mini.world` without an import of its own, loaded on first use."""
    if name == "world":
        return importlib.import_module("foveate.mini.world")
    raise AttributeError(f"module 'foveate.mini' has no attribute {name!r}")


class _Mini(ModuleType):
    """The module itself is the shorthand: ``foveate.mini("image")`` is ``load("image")``."""

    def __call__(self, name: str = "image", dtype=None):
        return load(name, dtype)


sys.modules[__name__].__class__ = _Mini

__all__ = ["ROLES", "WEIGHTS", "available", "load", "model_card"]
