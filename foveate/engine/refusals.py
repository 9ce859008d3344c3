"""Unsupported ways to run an attached model; each function raises `UnsupportedCall`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foveate.engine.anatomy import Anatomy
from foveate.errors import UnsupportedCall

CONTINUOUS_BATCHING = (
    "generate_batch",
    "init_continuous_batching",
    "continuous_batching_context_manager",
)
"""Methods of a transformers model that run it by continuous batching."""


def refuse_batching(*_: Any, **__: Any) -> None:
    """Raise for continuous batching."""
    raise UnsupportedCall(
        "Continuous batching is not supported, because it packs many prompts into one row; call "
        "generate instead, or detach the method first."
    )


def refuse_tracing() -> None:
    """Raise inside torch.export and torch.jit.trace."""
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        raise UnsupportedCall(
            "torch.export and torch.jit.trace would freeze the token selection of one prompt into "
            "the graph; export the bare model."
        )


def refuse_coarse_dtype() -> None:
    """Raise where new tensors are not float32 by default."""
    if torch.get_default_dtype() != torch.float32:
        raise UnsupportedCall(
            f"torch's default dtype is {torch.get_default_dtype()}, which changes the counts and "
            "scores of methods; call torch.set_default_dtype(torch.float32) after you load the "
            "model. The model itself may have any dtype."
        )


def refuse_replica(anatomy: Anatomy, inner: Any) -> None:
    """Raise in a replica, which runs the hooks of the model that it was copied from."""
    if inner is not anatomy.inner:
        raise UnsupportedCall(
            "Replicas of an attached model, such as those of nn.DataParallel, are not supported; "
            "use one process per device and attach in each of them."
        )


def refuse_compiled(anatomy: Anatomy) -> None:
    """Raise for a compiled decoder, whose graph may skip the hooks that change its cache."""
    if any(m._compiled_call_impl is not None for m in anatomy.text.modules()):
        raise UnsupportedCall(
            "A compiled language model may skip the hooks that change the KV cache; load the model "
            "without compile for a method that acts on the cache."
        )


def refuse_missing_pixels(anatomy: Anatomy, ids: Tensor | None) -> None:
    """Raise for ids (B, L) that have placeholders but no pixels.

    A single new token is not checked, because reading it would be a device sync for every decode
    step.
    """
    if ids is None or ids.shape[1] == 1:
        return
    marks = [anatomy.placeholder(m) for m in anatomy.modalities]
    unseen = sum((ids == mark for mark in marks if mark is not None), torch.zeros_like(ids))
    if bool(unseen.any()):
        raise UnsupportedCall(
            "The prompt has image or video placeholders and no pixels; pass pixel_values "
            "(and do not set prefill_chunk_size)."
        )
