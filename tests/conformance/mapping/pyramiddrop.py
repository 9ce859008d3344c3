"""PyramidDrop: the real engine, and its own `at_boundary` in front of a layer that has weights."""

import torch

from foveate.methods.layers.pyramiddrop import PyramidDrop
from tests.conformance.boundary import next_layer, one_sample, staying
from tests.conformance.host import built, prompted, run
from tests.conformance.reading import only


@torch.no_grad()
def rank_drop(inputs, weights, params):
    ratios, stage = tuple(params["ratios"][1:]), params["stage"]
    stages = tuple(range(1, len(ratios) + 1))
    method = PyramidDrop(layer_list=stages, image_token_ratio_list=ratios)
    assert method.positions == "native", "which numbers the columns of a Llama anew"
    hidden, original = inputs["hidden"], params["visual_original"]
    labels = inputs["labels"] if params["mode"] == "train" else None
    now = int(original * params["ratios"][stage])
    state = one_sample(
        hidden,
        params["visual_start"],
        now,
        {},
        entered=torch.tensor([original]),
        last=torch.tensor([params["prompt_text_len"] + now - 1]),
        labels=labels,
        **next_layer(params, weights, hidden, inputs["position_ids"]),
    )
    kept = staying(method.at_boundary(stages[stage], len(stages) + 1, state), state)
    return {
        "kept": kept,
        "position_ids": torch.arange(len(kept))[None],
        "hidden": hidden[:, kept],
    }


def forward(inputs, weights, params):
    method = PyramidDrop(
        layer_list=tuple(params["layer_list"]), image_token_ratio_list=tuple(params["ratios"][1:])
    )
    return staged(method, inputs, weights, params)


def staged(method, inputs, weights, params):
    """What a method that drops in stages makes of a case on the real engine."""
    original = params["visual_original"]
    rows, visual, n = prompted(inputs, params["visual_start"], original)
    only(params, prompt_text_len=n - original)
    model, call = built(params, weights, rows, visual)
    ran = run(model, call, method, n)
    return {
        "prefill_hidden": ran.hidden,
        "cache_len": torch.tensor(ran.lengths),
        "last_layer_keys": ran.keys,
        **ran.new_tokens(inputs),
    }


OPS = {"rank_drop": rank_drop, "forward": forward}
