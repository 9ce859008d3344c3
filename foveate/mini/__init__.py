"""The embedded models and the procedural world that they are trained on.

>>> import foveate
>>> model, processor = foveate.mini("image")
"""

import importlib
import json
import sys
from types import ModuleType

from foveate.errors import UnknownName

from .available_models import ROLES, WEIGHTS, available

# Folders with this suffix hold a CLIP text encoder for the model before the suffix.
TEXT = "-text"


def load(name: str = "image", dtype=None):
    """An embedded model in eval mode and its processor, offline: ``(model, processor)``.

    Args:
        name: a model, such as "nano", or a role: "image" is a VLM, "clip" a `CLIPModel` with the
            vision encoder of nano.
        dtype: torch dtype of the weights, float32 by default.
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
    """The model card of an embedded model or role as plain values; empty for other names."""
    if not isinstance(name, str):
        return {}
    path = WEIGHTS / ROLES.get(name, name) / "card.json"
    known = ROLES.get(name, name) in available()
    return json.loads(path.read_text(encoding="utf-8")) if known and path.is_file() else {}


def __getattr__(name: str):
    """Import `foveate.mini.world` on first use."""
    if name == "world":
        return importlib.import_module("foveate.mini.world")
    raise AttributeError(f"module 'foveate.mini' has no attribute {name!r}")


class _Mini(ModuleType):
    """Makes the module callable: ``foveate.mini("image")`` is ``load("image")``."""

    def __call__(self, name: str = "image", dtype=None):
        return load(name, dtype)


sys.modules[__name__].__class__ = _Mini

__all__ = ["ROLES", "WEIGHTS", "available", "load", "model_card"]
