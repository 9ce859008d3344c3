"""DivPrune: the method runs through its own `reduce`."""

import torch

from foveate.families.base import raster
from foveate.methods.tokens.divprune import DivPrune
from foveate.ops.farthest import farthest_point
from foveate.signals import Signals


def select(inputs, weights, params):
    x = inputs["tokens"][None]
    method = DivPrune(keep=params["ratio"])
    tokens = raster(1, 1, x.shape[1]).tokens(x)
    keep = method.count(tokens.grid)
    kept = method.reduce(tokens, Signals({}), keep)
    assert torch.equal(kept.features, x[:, kept.index[0]])
    return {"pick_order": farthest_point(x, keep)[0], "indices": kept.index[0]}


OPS = {"select": select}
