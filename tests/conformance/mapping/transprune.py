"""TransPrune: the real engine, and its own `at_boundary` in front of a layer that has weights."""

import torch

from foveate.methods.layers.transprune import TransPrune
from foveate.ops.transition import transition
from foveate.signals import DecoderTransition
from tests.conformance.boundary import next_layer, one_sample, staying
from tests.conformance.mapping.pyramiddrop import staged
from tests.conformance.reading import only


def ttv(inputs, weights, params):
    only(params, direction="1-cos", softmax_over="all tokens of the whole tensor")
    before, after = inputs["before"], inputs["after"]
    # The official softmax is over all samples, ours over each: here they are one.
    seen = transition(before.flatten(0, 1)[None], after.flatten(0, 1)[None])
    nothing = torch.zeros_like(seen)
    state = one_sample(
        before.flatten(0, 1)[None],
        0,
        1,
        {DecoderTransition(0): torch.stack([seen, nothing], 1)},
    )
    method = TransPrune(direction="signed", softmax_over="all")
    return {"ttv": method._ttv(0, state).view(before.shape[:2])}


@torch.no_grad()
def rank_drop(inputs, weights, params):
    ratios, stage = tuple(params["ratios"][1:]), params["stage"]
    hidden, history = inputs["hidden"], inputs["ttv_history"]
    original, watched = params["visual_original"], len(history)
    stages = tuple(range(watched, watched + len(ratios)))
    method = TransPrune(
        pruning_layer_list=stages,
        accumulating_layer_list=tuple(range(1, watched + 1)),
        image_token_ratio_list=ratios,
        alpha=params["alpha"],
        eps=params["eps"],
    )
    assert method.positions == "native", "which numbers the columns of a Llama anew"
    # Sub-modules that turn nothing, and stretch so that each layer's TTV is the given one.
    n = hidden.shape[1]
    seen = {
        DecoderTransition(i): torch.stack(
            [torch.stack([row * n, torch.ones(n)], -1), torch.tensor([0.0, 1.0]).expand(n, 2)]
        )[None]
        for i, row in enumerate(history)
    }
    now = int(original * params["ratios"][stage])
    state = one_sample(
        hidden,
        params["visual_start"],
        now,
        seen,
        entered=torch.tensor([original]),
        last=torch.tensor([params["prompt_text_len"] + now - 1]),
        **next_layer(params, weights, hidden, inputs["position_ids"]),
    )
    kept = staying(method.at_boundary(stages[stage], stages[-1] + 1, state), state)
    return {
        "kept": kept,
        "position_ids": torch.arange(len(kept))[None],
        "hidden": hidden[:, kept],
        "ttv_history": history[:, kept],
    }


def forward(inputs, weights, params):
    method = TransPrune(
        pruning_layer_list=tuple(params["pruning_layers"]),
        accumulating_layer_list=tuple(params["accumulating_layers"]),
        image_token_ratio_list=tuple(params["ratios"][1:]),
    )
    return staged(method, inputs, weights, params)


OPS = {"ttv": ttv, "rank_drop": rank_drop, "forward": forward}
