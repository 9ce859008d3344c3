"""HiRED: the method's shares and choice; the official code leaves what rounding leaves."""

import torch

from foveate.engine.taps import probabilities
from foveate.families.base import raster
from foveate.families.tiles import stitched, unpad_image
from foveate.methods.tokens.hired import HiRED
from foveate.ops.grouped import top_per_group
from foveate.ops.tiles import tiles
from foveate.signals import Signals, VisionAttention


def attn(inputs, weights, params):
    q, k = (
        inputs[name].unflatten(2, (params["heads"], -1)).transpose(1, 2)
        for name in ("query", "key")
    )
    return {"attn": probabilities(q, k, q.shape[3] ** -0.5, None)}


def _layout(side, crops, window=None):
    """A stitched picture without newlines, and the crop cell (N,) of every token."""
    layout = stitched(side, crops, window or (0, 0, crops[0] * side, crops[1] * side))
    layout = layout.select((~layout.special).nonzero()[:, 0])
    return layout, layout.rows[:, 0]


def select(inputs, weights, params):
    method = HiRED(alpha=params["alpha"], regions=params["regions"])
    masks, start = [], 0
    for n, crops in zip(params["partitions"], params["grids_hw"], strict=True):
        own = slice(start, start + n)
        start += n
        first, last = (inputs[f"{k}_cls_attn"][own].sum(1) for k in ("init", "final"))
        layout, rows = _layout(int(first.shape[1] ** 0.5), tuple(crops))
        lie = tiles(layout.tokens(torch.zeros(1, layout.n, 1)))
        assert lie.crops == tuple(crops)
        total = int(layout.n * params["token_budget_rate"])
        full = method.overview_share(total, first.shape[1])
        shares = method.crop_shares(first.flatten()[rows][None], lie, total - full)
        budgets = torch.cat([torch.tensor([[full]]), shares.long()], 1)
        kept = top_per_group(last.flatten()[rows][None], lie.group, budgets)[0]
        mask = torch.zeros(n * first.shape[1], dtype=torch.bool)
        masks.append(mask.index_put((rows,), kept).view(n, -1))
        assert method.budget(layout.grid) == round(layout.n * method.keep)
    return {"mask": torch.cat(masks)}


def select_single(inputs, weights, params):
    attention = inputs["final_cls_attn"][None]
    n = attention.shape[2]
    method = HiRED(keep=int(n * params["token_budget_rate"]))
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
    layout, rows = _layout(side, crops, window)
    kept = inputs["mask"].flatten()[rows].nonzero()[:, 0]
    tokens = layout.tokens(features.flatten(0, 1)[rows][None])
    return {"packed": tokens.take(kept[None]).features[0]}


OPS = {"attn": attn, "select": select, "select_single": select_single, "pack": pack}
