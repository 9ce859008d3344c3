"""Loading an embedded model from its folder, offline and without console output."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor
from transformers.utils import logging


@contextmanager
def silent_bars() -> Iterator[None]:
    """Hide transformers' progress bars, which are useless for files of a few megabytes."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_folder(folder: Path, dtype: torch.dtype | None = None):
    """``(model, processor)`` of a folder in transformers' own format; the model in eval mode."""
    with silent_bars():
        model = LlavaForConditionalGeneration.from_pretrained(
            folder, dtype=dtype or torch.float32, local_files_only=True
        )
    return model.eval(), LlavaProcessor.from_pretrained(folder, local_files_only=True)
