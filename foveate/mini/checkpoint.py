"""Checkpoints of training runs: one file with the state and the settings that it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from foveate.atomic_file import replacing
from foveate.mini.errors import TrainingError


def save(path: Path, run: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint; an interrupted write leaves the previous one in place.

    Args:
        path: the file.
        run: settings that identify the run (recipe, seed, base model), plain values.
        state: everything that the rest of the run depends on.
    """
    with replacing(path) as partial:
        torch.save({**run, **state}, partial)


def load(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU; raises `TrainingError` if it is of another run."""
    state = torch.load(path, weights_only=True, map_location="cpu")
    other = [f"{name}={state.get(name)!r}" for name in run if state.get(name) != run[name]]
    if other:
        raise TrainingError(
            f"{path} belongs to another run ({', '.join(other)}): train into another folder, or "
            "pass resume=False (--no-resume) to start again."
        )
    return state
