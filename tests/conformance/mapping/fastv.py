"""FastV: the method's own `at_boundary` on the attention of the layer before."""

import torch

from foveate.methods.layers.fastv import FastV
from foveate.parts import BoundaryState
from foveate.signals import DecoderAttention, Signals


def select(inputs, weights, params):
    hidden, attention = inputs["hidden"][None], inputs["attn"][None]
    n, start = hidden.shape[1], params["image_start"]
    visual = torch.zeros(1, n, dtype=torch.bool)
    visual[:, start : start + params["image_len"]] = True
    method = FastV(keep=params["keep"])
    state = BoundaryState(
        hidden=hidden,
        valid=torch.ones_like(visual),
        visual=visual,
        item=visual.long() - 1,
        entered=visual.sum(1),
        last=torch.tensor([n - 1]),
        labels=None,
        attention=None,
        signals=Signals({DecoderAttention(layer=method.k - 1): attention[:, :, -1]}),
    )
    kept = method.at_boundary(method.k, 32, state)[0].nonzero()[:, 0]
    assert method.positions == "original"
    return {"hidden": hidden[0, kept], "position_ids": kept}


OPS = {"select": select}
