"""DART: the method's own pivots and choice; the order of pivots is that of a Python set."""

import torch

from foveate.methods.layers.dart import DART, unlike
from tests.conformance.boundary import one_sample


def select(inputs, weights, params):
    keys, states = inputs["keys"][None], inputs["states"][None]
    n, start, length = states.shape[1], params["image_start"], params["image_len"]
    pivots = params["pivot_image"] + params["pivot_text"]
    quota = int(length * (1 - params["reduction_ratio"]) / pivots)
    visual = torch.zeros(1, n, dtype=torch.bool)
    visual[:, start : start + length] = True
    method = DART(
        keep=params["pivot_image"] + quota * pivots,
        pivot_image_token=params["pivot_image"],
        pivot_text_token=params["pivot_text"],
    )
    state = one_sample(states, start, length, {method.needs[0]: keys})
    budget = torch.tensor([method.keep])
    index, there, stays = method.pivots(keys.abs().sum((1, 3)), state, budget)
    assert there.all()
    ours = method.at_boundary(method.pruning_loc, 32, state)[0]
    assert torch.equal(ours, unlike(states, index, there, stays, visual, budget)[0] | ~visual[0])
    official = list(set(index[0].tolist()))
    order = torch.tensor([[index[0].tolist().index(i) for i in official]])
    index, stays = index.gather(1, order), stays.gather(1, order)
    kept = unlike(states, index, there, stays, visual, budget)
    return {"indices": kept[0].nonzero()[:, 0], "pivot_order": index[0]}


OPS = {"select": select}
