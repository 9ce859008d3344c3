"""LLaVolta: the method's own `at_boundary`, put into effect as the engine does."""

import torch

from foveate.engine.columns import merged
from foveate.methods.layers.llavolta import LLaVolta, setting_at
from foveate.parts import BoundaryState
from foveate.signals import Signals


def pool(inputs, weights, params):
    hidden = inputs["hidden"]
    item = torch.full(hidden.shape[:2], -1)
    for row, starts in zip(item, params["image_starts"], strict=True):
        for number, start in enumerate(starts):
            row[start : start + params["visual_length"]] = number
    state = BoundaryState(
        hidden=hidden,
        valid=torch.ones_like(item, dtype=torch.bool),
        visual=item >= 0,
        item=item,
        entered=(item >= 0).sum(1),
        last=torch.full(hidden.shape[:1], hidden.shape[1] - 1),
        labels=None,
        attention=None,
        signals=Signals({}),
    )
    merge = LLaVolta(stride=params["stride"]).at_boundary(2, 32, state)
    assert LLaVolta().positions == "original"
    columns = torch.arange(hidden.shape[1])
    kept = torch.stack([columns[row] for row in merge.into == columns])
    pooled = merged(hidden, merge)
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
