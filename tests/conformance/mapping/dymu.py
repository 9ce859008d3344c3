"""DyMU: merging by rank and by threshold, one block of a tower, schedules, virtual unmerging."""

import torch
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from foveate.ops import matching, unmerging


def _merged(x, size, assign, count, epsilon=0.0):
    total = matching.merge(size, assign, count, "sum")
    # Batches of the official code divide by a little more than the size.
    x = matching.merge(x * size, assign, count, "sum") / (total + epsilon).clamp(min=1e-9)
    return {"x": x, "size": total, "pos_tracking": matching.provenance(assign, count)}


def _half(x, params):
    # The official code counts padding too.
    return (x.shape[1] - params["class_token"]) // 2


def merge_instance(inputs, weights, params):
    x, metric, classed = inputs["x"], inputs["metric"], params["class_token"]
    size = inputs.get("size", torch.ones(*x.shape[:2], 1))
    if params["threshold"] is None:
        plan = matching.bipartite_soft_matching(metric, params["r"], classed)
    else:
        valid = torch.ones(x.shape[:2], dtype=torch.bool)
        best, partner = matching.pair_up(metric, classed, valid)
        chosen = matching.above(best, params["threshold"], _half(x, params))
        plan = matching.merge_chosen(chosen, best, partner, valid, classed)
    return _merged(x, size, *plan)


def merge_batch(inputs, weights, params):
    x, size = inputs["x"], inputs["size"]
    valid = size[..., 0] > 0
    if "padding_mask" in inputs:
        assert torch.equal(valid, inputs["padding_mask"] == 0)
    best, partner = matching.pair_up(inputs["metric"], params["class_token"], valid)
    out = {}
    if params["threshold"] is None:
        pairs = min(params["r"], _half(x, params)) * len(x)
        chosen, cut = matching.best_of_batch(best, pairs, _half(x, params))
        out["batch_threshold"] = torch.tensor([cut])
    else:
        chosen = matching.above(best, params["threshold"], _half(x, params))
    plan = matching.merge_chosen(chosen, best, partner, valid, ascending=True)
    out |= _merged(x, size, *plan, epsilon=1e-4)
    return out | {"padding_mask": (out["size"][..., 0] == 0).float()}


def vit_block(inputs, weights, params):
    x, size = inputs["x"], inputs["size"]

    def norm(x, name):
        return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    def dense(x, name):
        return linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    heads = params["num_heads"]
    qkv = dense(norm(x, "norm1"), "attn.qkv").unflatten(-1, (3, heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=matching.size_bias(size[..., 0]))
    x = x + dense(mixed.transpose(1, 2).flatten(2), "attn.proj")
    moved = merge_instance({"x": x, "size": size, "metric": k.mean(1)}, {}, params)
    x = moved["x"]
    x = x + dense(gelu(dense(norm(x, "norm2"), "mlp.fc1")), "mlp.fc2")
    return moved | {"x": x}


def r_schedule(inputs, weights, params):
    rows = zip(inputs["layers_total"].tolist(), params["kinds"], strict=True)
    return {
        f"q{i}": torch.tensor(matching.spread(total, layers, kind))
        for i, ((layers, total), kind) in enumerate(rows)
    }


def vtu_attend(inputs, weights, params):
    q, k, v, mapping = (inputs[n] for n in ("q", "k", "v", "mapping"))
    mapping, n = mapping[None], len(mapping)
    rates = params["rope_theta"] ** -(torch.arange(0, params["head_dim"], 2) / params["head_dim"])
    angles = (torch.arange(n)[:, None] * rates).repeat(1, 2)[None]
    cos, sin = angles.cos(), angles.sin()
    exact = unmerging.factorised_logits(q, k, mapping, cos, sin, params["scaling"])
    turned, keys = (unmerging.rotated(unmerging.stood(x, mapping), cos, sin) for x in (q, k))
    expanded = turned @ keys.mT * params["scaling"]
    torch.testing.assert_close(exact, expanded, atol=1e-4, rtol=1e-4)
    visible = torch.ones(n, n, dtype=torch.bool).tril()
    weight = exact.masked_fill(~visible, float("-inf")).softmax(-1)
    mixed = (weight @ unmerging.stood(v, mapping)).flatten(0, 1)
    unique = q.shape[2]
    return {
        "scores": exact,
        "attn_out": unmerging.averaged(mixed, mapping.expand(len(mixed), -1), unique)[None],
        "hidden_merged": unmerging.averaged(inputs["hidden"], mapping, unique),
    }


OPS = {
    "merge_instance": merge_instance,
    "merge_batch": merge_batch,
    "vit_block": vit_block,
    "r_schedule": r_schedule,
    "vtu_attend": vtu_attend,
}
