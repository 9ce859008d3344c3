"""ToMe: its own `merge` in the engine's tower; schedules by its own `merges`."""

import torch

from foveate.methods.encoders.tome import ToMe
from tests.conformance.tower import Block, Tower, clip_layer, in_halves, merged


def merge(inputs, weights, params):
    x, tower = merged(
        ToMe(r=params["r"]),
        inputs["x"],
        inputs["metric"],
        inputs.get("size"),
        classed=params["class_token"],
        distilled=params["distill_token"],
    )
    return {"x": x, "size": tower.size, "source": tower.source, "unmerged": tower.spread(x)}


def merge_kth(inputs, weights, params):
    part = ToMe(kth=params["k"])
    x, tower = merged(part, inputs["x"], inputs["metric"], inputs.get("size"), classed=False)
    return {"mean": x, "size": tower.size, "source": tower.source}


def schedule(inputs, weights, params):
    blocks = params["num_layers"]
    rules = {name: rule for name, rule in params.items() if name != "num_layers"}
    for name, rule in rules.items():
        rule = tuple(rule) if isinstance(rule, list) else rule
        rules[name] = torch.tensor(ToMe(r=rule).merges(blocks))
    return rules


def attend(inputs, weights, params):
    x = inputs["x"]
    layer = clip_layer(x.shape[2], params["num_heads"], 4)
    attention = layer.self_attn
    state = in_halves(weights, "qkv", {"proj": "self_attn.out_proj"})
    state = {name.removeprefix("self_attn."): value for name, value in state.items()}
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.zero_()
    found = attention.load_state_dict(state, strict=False)
    assert not found.unexpected_keys
    tower = Tower([Block(attention)], ToMe(r=0), classed=False)
    out = tower.run(x, inputs.get("size"))
    return {"x": out - x, "metric": tower.part.states[0].keys.mean(1)}


OPS = {"merge": merge, "merge_kth": merge_kth, "schedule": schedule, "attend": attend}
