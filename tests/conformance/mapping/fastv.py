"""FastV: the method's own `at_boundary` on the attention of the layer before."""

from foveate.methods.layers.fastv import FastV
from foveate.signals import DecoderAttention
from tests.conformance.boundary import one_sample, staying


def select(inputs, weights, params):
    hidden, attention = inputs["hidden"][None], inputs["attn"][None]
    method = FastV(keep=params["keep"])
    seen = {DecoderAttention(layer=method.k - 1): attention[:, :, -1]}
    state = one_sample(hidden, params["image_start"], params["image_len"], seen)
    kept = staying(method.at_boundary(method.k, 32, state), state)
    assert method.positions == "original"
    return {"hidden": hidden[0, kept], "position_ids": kept}


OPS = {"select": select}
