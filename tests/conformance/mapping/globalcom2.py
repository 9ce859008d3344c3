"""GlobalCom2: the method's own choice, rounded down: the official code leaves what that leaves."""

import torch

from foveate.engine.attention_taps import products
from foveate.families.base import raster
from foveate.families.specials import joined, newline_behind
from foveate.families.tiles import stitched, unpad_image
from foveate.methods.tokens.globalcom2 import GlobalCom2, crop_scales
from foveate.ops.grouped import chosen
from foveate.ops.tiles import tiles
from foveate.tokens import Layout


class RoundedDown(GlobalCom2):
    """Crops get the whole part of their shares."""

    def rounded(self, shares, caps, total):
        return shares.long().minimum(caps)


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
    method = RoundedDown(
        keep=ratio,
        temperature=params["temperature"],
        placement=params["placement"],
        thumbnail_order=params["thumbnail_order"],
    )
    lie = tiles(tokens)
    assert lie.crops == crops
    special = int(tokens.special.sum())
    free = method.count(tokens.grid) - special
    mask = method.best(score, lie, free, special) | tokens.special
    index = method.in_order(chosen(mask, int(mask.sum())), score, lie)
    full = int((lie.group[index[0]] == 0).sum())
    scales = crop_scales(lie.overview(score), crops, ratio, method.temperature)
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
