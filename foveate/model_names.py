"""Refuses names of models that can't lead to a checkpoint, before the Hub is asked for them."""

from __future__ import annotations

from pathlib import Path

from foveate.errors import UnknownName


def is_folder(name: str) -> bool:
    """Whether `name` is a local folder; `UnknownName` for a file or the path of a missing folder.

    Args:
        name: a local folder, or a name on the Hugging Face Hub.
    """
    path, given = Path(name).expanduser(), bool(name.strip())
    if given and path.is_dir():
        return True
    if given and path.exists():
        raise UnknownName(f"{name!r} is a file; give the folder that save_pretrained wrote.")
    if not given or name.startswith((".", "~", "/")) or name.count("/") > 1:
        raise UnknownName(f"There is no folder {name!r}; check the path.")
    return False
