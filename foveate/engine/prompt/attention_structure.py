"""Refuses prompts with an attention structure beyond padding: packed samples, custom masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_masks_for_generate

from foveate.engine.anatomy import Anatomy
from foveate.engine.prompt.prompt import cache_in
from foveate.errors import UnsupportedCall

_PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")


def refuse_structure(anatomy: Anatomy, kw: dict[str, Any], padding: Tensor | None) -> None:
    """Raise `UnsupportedCall` for a prompt whose attention structure would be lost with its tokens.

    Args:
        anatomy: The model.
        kw: Arguments of the inner model's forward.
        padding: The padding mask (B, L) of the prompt, None where nothing is padded.
    """
    if _packed(kw):
        raise UnsupportedCall(
            "Rows with several packed samples (position_ids that restart, or cu_seq_lens) are not "
            "supported when tokens are dropped; put each sample in its own row and pass "
            "attention_mask."
        )
    mask = kw.get("attention_mask")
    if not plain(mask) and _own(anatomy, kw, mask, padding):
        raise own_mask()


def plain(mask: Any) -> bool:
    """Whether a mask contains padding only."""
    return mask is None or isinstance(mask, Tensor) and mask.dim() == 2


def own_mask() -> UnsupportedCall:
    """The error for an attention mask that is more than padding."""
    return UnsupportedCall(
        "A custom attention_mask is not supported when tokens are dropped; pass the padding as a "
        "2-D mask (batch, tokens)."
    )


def _packed(kw: dict[str, Any]) -> bool:
    if any(kw.get(name) is not None for name in _PACKED):
        return True
    positions = kw.get("position_ids")
    # With a mask or a cache, transformers does not derive packed samples from position ids.
    if positions is None or kw.get("attention_mask") is not None or cache_in(kw) is not None:
        return False
    if positions.dim() == 3:
        # In M-RoPE models only an additional first row of four marks packed samples.
        if positions.shape[0] != 4:
            return False
        positions = positions[0]
    return bool((positions.diff(dim=-1) != 1).any())


def _own(anatomy: Anatomy, kw: dict[str, Any], mask: Any, padding: Tensor | None) -> bool:
    """Whether a mask differs from the one that the model itself makes of the padding."""
    ids = kw["input_ids"]
    b, length = ids.shape
    make = getattr(anatomy.outer, "create_masks_for_generate", create_masks_for_generate)
    # Positional, because the name of the cache argument differs between transformers versions.
    made = make(
        anatomy.outer.config,
        torch.empty(b, length, 0, dtype=anatomy.outer.dtype, device=ids.device),
        padding,
        cache_in(kw),
        position_ids=None,
        block_sequence_ids=kw.get("block_sequence_ids"),
        token_type_ids=kw.get("token_type_ids"),
        mm_token_type_ids=kw.get("mm_token_type_ids"),
        is_first_iteration=True,
    )
    alive = (ids.new_ones(b, length) if padding is None else padding).bool()
    rows, columns = alive[:, None, :, None], alive[:, None, None]
    itself = torch.eye(length, dtype=torch.bool, device=ids.device)
    kinds = made if isinstance(made, dict) else {}
    kinds = kinds or (dict.fromkeys(mask, made) if isinstance(mask, dict) else {"": made})
    for kind, right in kinds.items():
        given = mask.get(kind) if isinstance(mask, dict) else mask
        # No mask means that the kernel applies a causal mask itself.
        causal = torch.ones_like(itself).tril() & columns
        seen = causal if given is None else _visible(given, length)
        expected = causal if right is None else _visible(right, length)
        if seen is None or expected is None:
            return True
        # A padding column must not be attended to by any other column.
        if bool(((seen != expected) & rows | seen & ~columns & ~itself).any()):
            return True
    return False


def _visible(mask: Any, length: int) -> Tensor | None:
    """The mask (B, H, L, L) as bool, True where a row attends; None where it is not such a mask."""
    if not isinstance(mask, Tensor) or mask.dim() != 4:
        return None
    mask = mask[..., :length, :length]
    if mask.dtype == torch.bool:
        return mask
    seen, hidden = mask == 0, mask <= -1e4
    return seen if mask.is_floating_point() and bool((seen | hidden).all()) else None
