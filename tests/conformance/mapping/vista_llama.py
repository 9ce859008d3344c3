"""Vista-LLaMA: its attention by its own rule, rotated and cached as the engine does it.

The projector is given the official weights under our names.
"""

import torch

from foveate.methods.layers.vista_llama import VistaLLaMA
from foveate.methods.projectors.vista_llama import SequentialProjector, emitted
from tests.conformance.attention_call import attending, columns, rotary, rotate
from tests.conformance.reading import only


class Layer:
    """The attention module of a case, with a cache of keys as the rule leaves them."""

    def __init__(self, weights, params):
        self.weights, self.heads, self.d = weights, params["num_heads"], params["head_dim"]
        self.tables = rotary(self.d, params["rope_theta"])
        self.method, self.kept, self.probs = VistaLLaMA(), None, None

    def heads_of(self, hidden, name):
        rows = hidden @ self.weights[f"{name}_proj.weight"].T
        return rows.unflatten(-1, (self.heads, self.d)).transpose(1, 2)

    def kernel(self, call):
        logits = call.query @ call.key.transpose(-1, -2) * call.scaling
        self.probs = logits.masked_fill(~call.seen(), float("-inf")).softmax(-1)
        return (self.probs @ call.value).transpose(1, 2)

    def __call__(self, hidden, visual, valid, start=0):
        """Rows from `start` on, given the facts (B, N) of all columns up to their last."""
        keys = columns(visual, valid, torch.arange(visual.shape[1]).expand(visual.shape))
        rows = keys.take(keys.at[:, start:])
        query, key, value = (self.heads_of(hidden, name) for name in "qkv")
        tables = self.tables(rows.positions)
        raw = self.method.raw(rows)[:, None, :, None]
        new = key, rotate(key, *tables), torch.where(raw, key, rotate(key, *tables)), value
        old = self.kept or [x[:, :, :0] for x in new]
        self.kept = [torch.cat(pair, 2) for pair in zip(old, new, strict=True)]
        query = torch.where(raw, query, rotate(query, *tables))
        call = attending(query, *self.kept[2:], rows, keys, self.tables)
        out = self.method.attend(call, self.kernel).flatten(2)
        return out @ self.weights["o_proj.weight"].T


def attend(inputs, weights, params):
    only(params, scale="1/sqrt(head_dim)")
    valid, visual = inputs["attention_mask"].bool(), inputs["visual_mask"].bool()
    plain = Layer(weights, params)(inputs["hidden"], visual & False, valid)
    layer = Layer(weights, params)
    hidden = layer(inputs["hidden"], visual, valid)
    raw, rotated, _, value = layer.kept
    return {
        "hidden": hidden,
        "hidden_rope": plain,
        "probs": layer.probs,
        "key_raw": raw,
        "key_rotated": rotated,
        "value": value,
    }


def attend_decode(inputs, weights, params):
    layer, n = Layer(weights, params), params["prefill"]
    hidden, visual = inputs["hidden"], inputs["visual_mask"].bool()
    only(params, steps=hidden.shape[1] - n)
    prefill = layer(hidden[:, :n], visual[:, :n], visual[:, :n] | True)
    steps = [
        layer(hidden[:, i : i + 1], visual[:, : i + 1], visual[:, : i + 1] | True, i)
        for i in range(n, hidden.shape[1])
    ]
    raw, rotated, _, _ = layer.kept
    return {
        "prefill": prefill,
        "steps": torch.cat(steps, 1),
        "key_raw": raw,
        "key_rotated": rotated,
    }


NAMES = {
    "ln_vision": "vision_norm",
    "vlm_projector": "project",
    "Qformer.bert.embeddings.LayerNorm": "norm",
    "Qformer.bert.encoder.layer": "blocks",
    "crossattention.self": "cross_attention",
    "crossattention.output.dense": "cross_attention.out",
    "crossattention.output.LayerNorm": "cross_attention.norm",
    "attention.self": "self_attention",
    "attention.output.dense": "self_attention.out",
    "attention.output.LayerNorm": "self_attention.norm",
    "intermediate_query.dense": "up",
    "output_query.dense": "down",
    "output_query.LayerNorm": "norm",
}


def sequential_project(inputs, weights, params):
    first, *others = emitted(inputs["features"].shape[1], params["num_clips"])
    interval = others[0] - first if others else params.get("interval")
    only(params, layer_norm_eps=1e-12, ln_vision_eps=1e-5, act="gelu")
    only(params, first_index=first, interval=interval)
    module = SequentialProjector(
        params["encoder_width"],
        weights["vlm_projector.weight"].shape[0],
        num_query=params["num_query"],
        width=params["hidden"],
        heads=params["heads"],
        depth=params["layers"],
        intermediate=params["intermediate"],
        cross_attention_freq=params["cross_attention_freq"],
    )
    renamed = {}
    for name, value in weights.items():
        for official, own in NAMES.items():
            name = name.replace(official, own)
        renamed[name] = value
    module.load_state_dict(renamed)
    with torch.no_grad():
        tokens, _ = module(inputs["features"], params["num_clips"])
    return {"tokens": tokens}


OPS = {
    "attend": attend,
    "attend_decode": attend_decode,
    "sequential_project": sequential_project,
}
