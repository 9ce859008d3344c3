"""ToMe: matching, merging, schedules and attention by size."""

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from foveate.ops import matching


def merge(inputs, weights, params):
    x, metric = inputs["x"], inputs["metric"]
    assign, count = matching.bipartite_soft_matching(
        metric, params["r"], params["class_token"], params["distill_token"]
    )
    size = inputs.get("size", torch.ones(*x.shape[:2], 1))
    merged, sizes = matching.merge_weighted(x, size, assign, count)
    return {
        "x": merged,
        "size": sizes,
        "source": matching.provenance(assign, count),
        "unmerged": matching.unmerge(merged, assign),
    }


def merge_kth(inputs, weights, params):
    assign, count = matching.kth_bipartite_soft_matching(inputs["metric"], params["k"])
    return {"mean": matching.merge(inputs["x"], assign, count, "mean")}


def schedule(inputs, weights, params):
    blocks = params["num_layers"]
    return {
        "const": torch.tensor(matching.schedule(params["const"], blocks)),
        "dec": torch.tensor(matching.schedule(params["dec"], blocks)),
        "inc": torch.tensor(matching.schedule(params["inc"], blocks)),
        "list": torch.tensor(matching.schedule(params["list"], blocks)),
    }


def attend(inputs, weights, params):
    x = inputs["x"]
    qkv = linear(x, weights["qkv.weight"], weights.get("qkv.bias"))
    q, k, v = qkv.unflatten(-1, (3, params["num_heads"], -1)).permute(2, 0, 3, 1, 4)
    size = inputs.get("size")
    bias = None if size is None else matching.size_bias(size[..., 0])
    out = scaled_dot_product_attention(q, k, v, attn_mask=bias)
    out = out.transpose(1, 2).flatten(2)
    return {"x": linear(out, weights["proj.weight"], weights.get("proj.bias")), "metric": k.mean(1)}


OPS = {"merge": merge, "merge_kth": merge_kth, "schedule": schedule, "attend": attend}
