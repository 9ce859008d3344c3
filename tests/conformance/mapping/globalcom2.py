"""GlobalCom2: the method's allocation, scores and order; rounding is left as the case has it."""

import torch

from foveate.engine.taps import products
from foveate.families.base import raster
from foveate.families.specials import joined, newline_behind
from foveate.families.tiles import stitched, unpad_image
from foveate.methods.tokens.globalcom2 import GlobalCom2, crop_scales, guided
from foveate.ops.grouped import chosen, top_per_group
from foveate.ops.tiles import tiles
from foveate.tokens import Layout


def allocate(inputs, weights, params):
    base = inputs["base_scores"]
    side = int(len(base) ** 0.5)
    crops = params["grid_h"], params["grid_w"]
    ratio, temperature = params["retention_ratio"], params["temperature"]
    return {"scales": crop_scales(base.view(1, side, side), crops, ratio, temperature)[0]}


def attn_logits(inputs, weights, params):
    def heads(name):
        made = torch.nn.functional.linear(
            inputs["x"], weights[f"{name}.weight"], weights.get(f"{name}.bias")
        )
        return made.unflatten(2, (params["num_heads"], -1)).transpose(1, 2)

    q = heads("q_proj")
    logits = products(q, heads("k_proj"), q.shape[3] ** -0.5).mean(1)
    return {"logits": logits, "cls_scores": logits[:, 0, 1:]}


def compress(inputs, weights, params):
    features, scores, side = inputs["features"], inputs["scores"], params["side"]
    crops = params["grid_h"], params["grid_w"]
    layout = _layout(side, crops, params["image_size_wh"])
    rows = layout.rows[:, 0]
    flat = torch.cat([features.flatten(0, 1), inputs["newline"][None]])
    tokens = layout.tokens(flat[rows][None])
    score = scores.flatten()[rows.clamp(min=0)][None].masked_fill(tokens.special, 0)
    ratio = params["retention_ratio"]
    method = GlobalCom2(
        keep=ratio,
        temperature=params["temperature"],
        placement=params["placement"],
        thumbnail_order=params["thumbnail_order"],
    )
    lie = tiles(tokens)
    assert lie.crops == crops
    base = lie.overview(score)
    scales = crop_scales(base, crops, ratio, method.temperature)
    full = int(side * side * ratio)
    budgets = torch.cat([torch.tensor([[full]]), (scales * lie.sizes[1:]).long()], 1)
    mask = top_per_group(guided(score, base, lie), lie.group, budgets) | tokens.special
    index = method.in_order(chosen(mask, int(mask.sum())), score, lie)
    out = tokens.take(index).features[0]
    return {
        "thumbnail_indices": index[0, :full],
        "thumbnail": out[:full],
        "crops": out[full:],
        "packed": out,
        "scales": scales[0],
    }


def _layout(side, crops, size_wh) -> Layout:
    """Overview and unpadded picture, with a newline for every row of the padded one."""
    height, width = (n * side for n in crops)
    grid = torch.arange(height * width).view(1, height, width)
    cells = unpad_image(grid, size_wh[::-1])[0]
    window = (*divmod(int(cells[0, 0]), width), *cells.shape)
    layout = stitched(side, crops, window)
    patches = layout.select((~layout.special).nonzero()[:, 0])
    newlines = newline_behind(raster(1, height, 1), 1).select(torch.arange(1, 2 * height, 2))
    return joined(patches, newlines)


OPS = {"allocate": allocate, "attn_logits": attn_logits, "compress": compress}
