"""LLaVolta: the method's own `at_boundary`, put into effect as the engine does."""

import torch

from foveate.engine.decoder.columns import merge_columns
from foveate.methods.layers.llavolta import LLaVolta, setting_at
from tests.conformance.boundary import one_sample


def pool(inputs, weights, params):
    hidden = inputs["hidden"]
    item = torch.full(hidden.shape[:2], -1)
    for row, starts in zip(item, params["image_starts"], strict=True):
        for number, start in enumerate(starts):
            row[start : start + params["visual_length"]] = number
    state = one_sample(hidden, 0, 0, {}, item=item, visual=item >= 0, entered=(item >= 0).sum(1))
    state.valid = torch.ones_like(state.visual)
    state.last = torch.full(hidden.shape[:1], hidden.shape[1] - 1)
    merge = LLaVolta(stride=params["stride"]).at_boundary(2, 32, state)
    assert LLaVolta().positions == "original"
    columns = torch.arange(hidden.shape[1]).expand(hidden.shape[:2])
    if merge is None:
        return {"hidden": hidden, "position_ids": columns}
    kept = torch.stack([own[row] for own, row in zip(columns, merge.into == columns, strict=True)])
    pooled = merge_columns(hidden, merge)
    return {
        "hidden": torch.stack([x[k] for x, k in zip(pooled, kept, strict=True)]),
        "position_ids": kept,
    }


def schedule(inputs, weights, params):
    names = ("strides", "layers", "pivots")
    settings = [setting_at(i, *(params[n] for n in names)) for i in range(params["steps"])]
    steps = [i for i, s in enumerate(settings) if i == 0 or s != settings[i - 1]]
    return {
        "change_steps": torch.tensor(steps),
        "stride": torch.tensor([settings[i][0] for i in steps]),
        "layer": torch.tensor([settings[i][1] for i in steps]),
    }


OPS = {"pool": pool, "schedule": schedule}
