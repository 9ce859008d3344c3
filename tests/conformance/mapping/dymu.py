"""DyMU: its own `merge`, and that of its calibration, in the engine's tower; virtual unmerging.

Batches of the official code divide by size + 1e-4, keep the order of slots where single pictures
are ordered by similarity, and count padding where they merge at most half. Ours gives in a batch
what a picture gives alone: answers are put into the official form behind the tower.
"""

from dataclasses import replace

import torch

from foveate.attention_call import Whole
from foveate.methods.encoders.dymu import DyMU, Unmerging, Watching
from tests.conformance.attention_call import attending, columns, rotary
from tests.conformance.reading import only
from tests.conformance.tower import Tower, clip_layer, in_halves, merged


class InBatch(DyMU):
    """As the official batch, whose half of a picture counts its padding."""

    def most(self, block, blocks, state):
        return super().most(block, blocks, replace(state, size=torch.ones_like(state.size)))


def _method(params, n, kind=DyMU):
    """The method whose only block merges as the case says, n patches having entered."""
    r, most, threshold = params["r"], params.get("max_r_per_instance"), params["threshold"]
    # The official r merges what it can; a budget of ours that can't be reached is refused.
    r = min(r, n // 2 if threshold is None else n - 1)
    if threshold is None and kind is DyMU:
        # It also caps only what a threshold finds.
        most = None
    return kind(
        r_total=r,
        thresholds=None if threshold is None else (threshold,),
        max_r_per_instance_ratio=None if most is None else (most + 0.5) / max(r, 1),
    )


def _answers(x, tower):
    return {"x": x, "size": tower.size, "pos_tracking": tower.source}


def merge_instance(inputs, weights, params):
    x, classed = inputs["x"], params["class_token"]
    method = _method(params, x.shape[1] - classed)
    return _answers(*merged(method, x, inputs["metric"], inputs.get("size"), classed=classed))


def merge_batch(inputs, weights, params):
    x, size, classed = inputs["x"], inputs.get("size"), params["class_token"]
    if "padding_mask" in inputs:
        padded = inputs["padding_mask"] > 0
        size = torch.ones(*x.shape[:2], 1) if size is None else size
        size = size.masked_fill(padded[..., None], 0)
    method = _method(params, x.shape[1] - classed, InBatch)
    part = method if method.adaptive else Watching(method=method)
    made, tower = merged(part, x, inputs["metric"], size, classed=classed)
    out = _answers(made, tower)
    order = _by_slots(out["pos_tracking"])
    out = {k: v.gather(1, order[..., None].expand_as(v)) for k, v in out.items()}
    out["x"] = out["x"] * out["size"] / (out["size"] + 1e-4)
    out["padding_mask"] = (out["size"][..., 0] == 0).float()
    if part is not method:
        out["batch_threshold"] = torch.tensor(part.samples[0])
    return out


def _by_slots(source):
    """Order (B, M): even tokens that stayed alone, then odd ones, then padding, all ascending."""
    n = source.shape[2]
    slots = torch.arange(n)
    held = source > 0
    odd = (held & (slots % 2 == 1)).int()
    place = torch.where(odd.any(2), n + odd.argmax(2), held.int().argmax(2))
    return place.masked_fill(~held.any(2), 2 * n).argsort(dim=1, stable=True)


NAMES = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def vit_block(inputs, weights, params):
    only(params, proportional_attention=True)
    x, classed = inputs["x"], params["class_token"]
    layer = clip_layer(
        params["dim"],
        params["num_heads"],
        weights["mlp.fc1.weight"].shape[0],
        params["layernorm_eps"],
    )
    layer.load_state_dict(in_halves(weights, "attn.qkv", NAMES))
    tower = Tower([layer], _method(params, x.shape[1] - classed), classed)
    return _answers(tower.run(x, inputs.get("size")), tower)


def r_schedule(inputs, weights, params):
    out = {}
    rows = zip(inputs["layers_total"].tolist(), params["kinds"], strict=True)
    for i, ((layers, total), kind) in enumerate(rows):
        method = DyMU(r_total=total, r_schedule=kind)
        merges = [method.planned(block, layers, total + 1) for block in range(layers)]
        out[f"q{i}"] = torch.tensor(merges)
    return out


def vtu_attend(inputs, weights, params):
    only(params, causal=True)
    q, k, v, mapping = (inputs[n] for n in ("q", "k", "v", "mapping"))
    assert q.shape[1::2] == (params["heads"], params["head_dim"])
    unique, n = q.shape[2], len(mapping)
    steps = torch.arange(n)
    # A token counts on from the last place that it holds.
    last = torch.zeros(unique, dtype=torch.long).scatter_reduce(0, mapping, steps, "amax")
    facts = columns(torch.zeros(1, unique, dtype=torch.bool), torch.ones(1, unique) > 0, last[None])
    tables = rotary(params["head_dim"], params["rope_theta"])
    whole = Whole(mapping[None], steps[None])
    call = attending(q, k, v, facts, facts, tables, whole, params["scaling"])
    seen = []

    def kernel(wide):
        seen.append(wide.query @ wide.key.mT * wide.scaling)
        weight = seen[0].masked_fill(~wide.seen(), float("-inf")).softmax(-1)
        return (weight @ wide.value).transpose(1, 2)

    rule = Unmerging(DyMU())
    out = rule.attend(call, kernel)
    # What it does with any states of the virtual positions.
    hidden = rule.attend(call, lambda _: inputs["hidden"][:, :, None])
    return {
        "scores": seen[0],
        "attn_out": out.transpose(1, 2),
        "hidden_merged": hidden[:, :, 0],
    }


OPS = {
    "merge_instance": merge_instance,
    "merge_batch": merge_batch,
    "vit_block": vit_block,
    "r_schedule": r_schedule,
    "vtu_attend": vtu_attend,
}
