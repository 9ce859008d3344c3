"""The mixture-of-depths layer of LION-FS, which adopts VideoLLM-MoD's idea otherwise.

"LION-FS: Fast & Slow Video-Language Thinker as Online Video Assistant", CVPR 2025, arXiv
2503.03663. One router with two outputs reads the normed input; the best vision tokens of the whole
sequence join all text, positions are counted anew, and only what the MLP adds is scaled. As vision
tokens compete across frames, a later frame changes earlier choices: no method is made of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear


def lionfs_layer(
    layer: Any,
    rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    router: Tensor,
    hidden: Tensor,
    visual: Tensor,
    keep_ratio: float = 0.5,
) -> tuple[Tensor, Tensor, Tensor]:
    """The stream (1, N, D) behind a layer, the columns (k,) that ran, and the router's loss.

    layer: a Llama-like decoder layer. rotary(x, positions): its tables. router (2, D). visual
    (1, N) bool. The loss is the cross entropy of the router against who ran, mean over all tokens.
    """
    normed = layer.input_layernorm(hidden)
    logits = linear(normed, router)
    share = logits.softmax(-1)[..., 1]
    n = hidden.shape[1]
    k = math.ceil(n - (1 - keep_ratio) * int(visual.sum()))
    ran = (share + ~visual).topk(k, dim=1).indices.sort(1).values
    index = ran[..., None].expand(-1, -1, hidden.shape[2])
    x, asked = hidden.gather(1, index), normed.gather(1, index)
    positions = torch.arange(k, device=hidden.device)[None]
    tables = rotary(asked, positions)
    x = x + layer.self_attn(asked, position_embeddings=tables, attention_mask=None)[0]
    x = x + layer.mlp(layer.post_attention_layernorm(x)) * share.gather(1, ran)[..., None]
    chosen = torch.zeros_like(visual, dtype=torch.long).scatter_(1, ran, 1)
    loss = cross_entropy(logits.flatten(0, 1), chosen.flatten())
    return hidden.scatter(1, index, x), ran[0], loss
