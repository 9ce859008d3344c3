"""FastV: the method's own `at_boundary` on the attention of the layer before."""

import torch

from foveate.methods.layers.fastv import FastV
from foveate.signals import DecoderAttention
from tests.conformance.boundary import one_sample


def select(inputs, weights, params):
    hidden, attention = inputs["hidden"][None], inputs["attn"][None]
    n, start = hidden.shape[1], params["image_start"]
    visual = torch.zeros(1, n, dtype=torch.bool)
    visual[:, start : start + params["image_len"]] = True
    method = FastV(keep=params["keep"])
    seen = {DecoderAttention(layer=method.k - 1): attention[:, :, -1]}
    state = one_sample(hidden, start, params["image_len"], seen)
    kept = method.at_boundary(method.k, 32, state)[0].nonzero()[:, 0]
    assert method.positions == "original"
    return {"hidden": hidden[0, kept], "position_ids": kept}


OPS = {"select": select}
