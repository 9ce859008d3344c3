"""FasterVLM: the method runs through its own `reduce`."""

import torch

from foveate.families.base import raster
from foveate.families.tiles import stitched
from foveate.methods.tokens.fastervlm import FasterVLM
from foveate.signals import Signals, VisionAttention
from foveate.tokens import Layout


def _kept(method, layout: Layout, features, attention):
    """Reduced tokens; features (B, N, D) and attention (B, H, N) follow the layout."""
    tokens = layout.tokens(features)
    signals = Signals({VisionAttention(): attention})
    return method.reduce(tokens, signals, method.count(tokens.grid))


def select(inputs, weights, params):
    attention = inputs["cls_attn"]
    layout = raster(1, 1, attention.shape[2])
    kept = _kept(FasterVLM(keep=params["keep"]), layout, attention.transpose(1, 2), attention)
    mask = torch.zeros(len(attention), layout.n, dtype=torch.bool).scatter_(1, kept.index, True)
    # Features that are the attention itself show the score of what was kept.
    assert torch.equal(kept.features.mean(2), attention.mean(1)[mask].view(len(attention), -1))
    return {"score": attention.mean(1), "mask": mask, "indices": kept.index}


def pack_anyres(inputs, weights, params):
    features, attention = inputs["features"], inputs["cls_attn"]
    side, tiles = params["side"], (params["grid_h"], params["grid_w"])
    # The official layout without newlines: the picture fills its crops.
    layout = stitched(side, tiles, (0, 0, *(n * side for n in tiles)))
    layout = layout.select((~layout.special).nonzero()[:, 0])
    rows = layout.rows[:, 0]
    kept = _kept(
        FasterVLM(keep=params["keep"] * len(features)),
        layout,
        features.flatten(0, 1)[rows][None],
        attention.transpose(0, 1).flatten(1)[:, rows][None],
    )
    mask = torch.zeros(features.shape[:2], dtype=torch.bool)
    mask.view(-1)[rows[kept.index[0]]] = True
    return {"packed": kept.features[0], "mask": mask}


OPS = {"select": select, "pack_anyres": pack_anyres}
