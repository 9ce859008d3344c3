"""The embedded models and the procedural world that they are trained on."""

from pathlib import Path

from foveate.errors import UnknownName

WEIGHTS = Path(__file__).parent / "weights"


def available() -> list[str]:
    """Names of the embedded models whose weights are in this installation."""
    return sorted(p.parent.name for p in WEIGHTS.glob("*/model.safetensors"))


def load(name: str = "nano", dtype=None):
    """An embedded model and its processor, offline: ``(model, processor)``, model in eval mode.

    ``dtype`` is a torch dtype; float32 by default, whatever the weights are stored in.
    """
    if name not in available():
        raise UnknownName.of("embedded model", name, available())
    from .weights_loading import load_folder

    return load_folder(WEIGHTS / name, dtype)


__all__ = ["available", "load"]
