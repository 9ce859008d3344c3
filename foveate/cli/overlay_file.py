"""The files that `--overlay` and `--heatmap` write: one sheet for all pictures of a question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from foveate.errors import FoveateError, MediaError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def check_overlay(path: Path | None, option: str = "--overlay") -> None:
    """Raise `MediaError` for a file that can't be written, before any work is done for it."""
    if path is None:
        return
    if path.suffix.lower() not in _SUFFIXES:
        raise MediaError(f"{option} {str(path)!r} is not an image; use a name such as out.png.")
    if path.is_dir():
        raise MediaError(f"{option} {str(path)!r} is a folder; give the name of a file.")
    if not path.absolute().parent.is_dir():
        folder = str(path.absolute().parent)
        raise MediaError(f"{option} {str(path)!r}: {folder!r} does not exist; create the folder.")


def write_overlay(
    path: Path,
    images: Sequence[Image.Image],
    processor: Any,
    report: Any,
    question: str = "",
    answer: str = "",
) -> None:
    """Write the sheet of kept, merged and dropped patches of one call.

    Args:
        path: the file; its ending says in which format.
        images: the pictures of the question, in order.
        processor: the model's; it says which part of a picture the model sees.
        report: of the call.
        question: for the caption.
        answer: for the caption.
    """
    from foveate.view import overlay_sheet, seen_by_item

    shown = seen_by_item(images, processor, report.traces)
    _save(overlay_sheet(shown, report, question=question, answer=answer), path)


def write_heatmap(
    path: Path,
    images: Sequence[Image.Image],
    processor: Any,
    report: Any,
    question: str = "",
    answer: str = "",
) -> None:
    """Write the sheet of token scores of one call, with the arguments of `write_overlay`."""
    from foveate.view import heatmap_sheet, seen_by_item

    if not any(trace.scores for trace in report.traces):
        raise FoveateError(
            f"{report.method or 'The full model'} does not rank tokens by a score, so --heatmap "
            "has nothing to draw; use --overlay to see which tokens are kept."
        )
    shown = seen_by_item(images, processor, report.traces)
    _save(heatmap_sheet(shown, report, question=question, answer=answer), path)


def _save(sheet: Image.Image, path: Path) -> None:
    try:
        sheet.save(path)
    except OSError as error:
        raise MediaError(f"{str(path)!r} can't be written ({error.strerror}).") from None
