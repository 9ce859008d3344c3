"""The files that `--overlay` and `--heatmap` write: one sheet for all pictures of a question."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from PIL import Image

from foveate.errors import FoveateError, MediaError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def check_drawings(overlay: Path | None, heatmap: Path | None) -> None:
    """Raise `MediaError` for files that can't be written, before any work is done for them."""
    _check_file(overlay, "--overlay")
    _check_file(heatmap, "--heatmap")
    if overlay is not None and heatmap is not None and overlay.resolve() == heatmap.resolve():
        raise MediaError(
            f"--overlay and --heatmap both name {str(heatmap)!r}; give each its own file."
        )


def check_scores(method: Any, given: bool) -> None:
    """Raise `FoveateError` for `--heatmap` without scores to draw, before a model is loaded.

    given: whether the command line names a method.
    """
    from foveate.view.ranking import ranks_tokens

    if not given:
        raise FoveateError(
            "The full model does not rank tokens by a score, so --heatmap has nothing to draw; "
            "name a method such as fastv with --method, or use --overlay."
        )
    if not ranks_tokens(method):
        raise FoveateError(_no_scores(str(method)))


def _no_scores(method: str) -> str:
    return (
        f"{method} does not rank tokens by a score, so --heatmap has nothing to draw; use "
        "--overlay to see which tokens are kept."
    )


def _check_file(path: Path | None, option: str) -> None:
    if path is None:
        return
    shown = f"{option} {str(path)!r}"
    if path.suffix.lower() not in _SUFFIXES:
        raise MediaError(f"{shown} is not an image; use a name such as out.png.")
    if path.is_dir():
        raise MediaError(f"{shown} is a folder; give the name of a file.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise MediaError(f"{shown}: {str(folder)!r} does not exist; create the folder.")
    if path.exists() and not os.access(path, os.W_OK):
        raise MediaError(f"{shown} can't be overwritten; change its permissions or use another.")
    try:
        # The permissions of a folder do not tell for read-only and virtual file systems.
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MediaError(
            f"{shown}: nothing can be written to {str(folder)!r} ({error.strerror}); use another "
            "folder."
        ) from None


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
    _save(overlay_sheet(shown, report, question=question, answer=answer), path, "--overlay")


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
        raise FoveateError(_no_scores(report.method or "The full model"))
    shown = seen_by_item(images, processor, report.traces)
    _save(heatmap_sheet(shown, report, question=question, answer=answer), path, "--heatmap")


def _save(sheet: Image.Image, path: Path, option: str) -> None:
    try:
        sheet.save(path)
    except OSError as error:
        reason = error.strerror or error
        raise MediaError(f"{option} {str(path)!r} can't be written ({reason}).") from None
