"""The file behind `--overlay`: one panel per picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from foveate.errors import MediaError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def check_overlay(path: Path | None) -> None:
    """Raise `MediaError` for a file that can't be written, before any work is done for it."""
    if path is None:
        return
    if path.suffix.lower() not in _SUFFIXES:
        raise MediaError(f"--overlay {str(path)!r} is no picture file; use a name such as out.png.")
    if path.is_dir():
        raise MediaError(f"--overlay {str(path)!r} is a folder; give the name of a file.")
    if not path.absolute().parent.is_dir():
        raise MediaError(f"--overlay {str(path)!r}: there is no folder {str(path.parent)!r}.")


def write_overlay(path: Path, images: Sequence[Image.Image], processor: Any, report: Any) -> None:
    """Draw what `report` kept on the pictures it is about, side by side where they are several."""
    from foveate.view import overlay, seen, side_by_side

    panels = [
        overlay(seen(image, processor), trace)
        for image, trace in zip(images, report.traces, strict=True)
    ]
    captions = [
        f"{kept} of {full} tokens"
        for kept, full in zip(report.tokens_out, report.tokens_in, strict=True)
    ]
    drawn = panels[0] if len(panels) == 1 else side_by_side(panels, captions, columns=4)
    try:
        drawn.save(path)
    except OSError as error:
        raise MediaError(f"{str(path)!r} can't be written ({error.strerror}).") from None
