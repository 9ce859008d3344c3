"""HiRED: the method's own choice, rounded down: the official code leaves what that leaves."""

import torch

from foveate.engine.attention_taps import probabilities
from foveate.families.base import raster
from foveate.families.tiles import stitched, unpad_image
from foveate.methods.tokens.hired import HiRED
from foveate.signals import Signals, VisionAttention


def attn(inputs, weights, params):
    q, k = (
        inputs[name].unflatten(2, (params["heads"], -1)).transpose(1, 2)
        for name in ("query", "key")
    )
    return {"attn": probabilities(q, k, q.shape[3] ** -0.5, None)}


class RoundedDown(HiRED):
    """Crops get the whole part of their shares."""

    def rounded(self, shares, caps, total):
        return shares.long().minimum(caps)


def _layout(side, crops, window=None, newline=False):
    """A stitched picture, with or without newlines, and the crop cell (N,) of every token."""
    layout = stitched(side, crops, window or (0, 0, crops[0] * side, crops[1] * side))
    if not newline:
        layout = layout.select((~layout.special).nonzero()[:, 0])
    return layout, layout.rows[:, 0]


def _single(n):
    """A picture without crops."""
    layout = raster(1, 1, n)
    return layout, layout.rows[:, 0]


def select(inputs, weights, params):
    masks, start = [], 0
    for n, crops in zip(params["partitions"], params["grids_hw"], strict=True):
        own = slice(start, start + n)
        start += n
        first, last = (inputs[f"{k}_cls_attn"][own] for k in ("init", "final"))
        _, heads, cells = first.shape
        layout, rows = _layout(int(cells**0.5), tuple(crops)) if n > 1 else _single(cells)
        keep = max(1, int(layout.n * min(1.0, params["token_budget_rate"])))
        method = RoundedDown(keep=keep, alpha=params["alpha"], regions=params["regions"])
        tokens = layout.tokens(torch.zeros(1, layout.n, 1))
        seen = {
            need: x.transpose(0, 1).reshape(1, heads, -1)[:, :, rows]
            for need, x in zip(method.needs, (first, last), strict=True)
        }
        # The engine asks nobody where all stay.
        kept = tokens.patch if keep == layout.n else method.kept(tokens, Signals(seen), keep)
        mask = torch.zeros(n * cells, dtype=torch.bool)
        masks.append(mask.index_put((rows,), kept[0]).view(n, -1))
    return {"mask": torch.cat(masks)}


def select_single(inputs, weights, params):
    attention = inputs["final_cls_attn"][None]
    n = attention.shape[2]
    method = HiRED(keep=max(1, int(n * min(1.0, params["token_budget_rate"]))))
    tokens = raster(1, 1, n).tokens(torch.zeros(1, n, 1))
    values = {VisionAttention(layer=0): attention, VisionAttention(): attention}
    kept = method.reduce(tokens, Signals(values), method.count(tokens.grid))
    return {"mask": kept.assign[0] >= 0}


def pack(inputs, weights, params):
    features, side = inputs["features"], params["side"]
    crops = params["grid_h"], params["grid_w"]
    height, width = (n * side for n in crops)
    # The method only ever sees the cells that the model's own unpadding leaves.
    cells = unpad_image(
        torch.arange(height * width).view(1, height, width), params["image_size_hw"]
    )
    window = (*divmod(int(cells[0, 0, 0]), width), *cells.shape[1:])
    newline = bool(params.get("newline"))
    layout, rows = _layout(side, crops, window, newline)
    vectors = features.flatten(0, 1)
    if newline:
        vectors = torch.cat([vectors, inputs["newline"][None]])
    tokens = layout.tokens(vectors[rows][None])
    kept = torch.cat([inputs["mask"].flatten().bool(), torch.tensor([True])])[rows].nonzero()[:, 0]
    return {"packed": tokens.take(kept[None]).features[0]}


OPS = {"attn": attn, "select": select, "select_single": select_single, "pack": pack}
