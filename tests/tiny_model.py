"""A LLaVA of 2.4 million random parameters with its processor, for tests of whatever loads one."""

from __future__ import annotations

from pathlib import Path

from foveate.mini.architecture import nano_config, new_model, new_processor
from foveate.mini.weights_loading import silent_bars


def save_tiny(folder: Path) -> Path:
    """Write the model and its processor into `folder` as `save_pretrained` does."""
    config = nano_config()
    with silent_bars():
        new_model(config, 0).save_pretrained(folder)
    new_processor(config).save_pretrained(folder)
    return folder
