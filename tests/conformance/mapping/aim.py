"""AIM: merging by its own `reduce`, ranking by its own `importance`, pruning on the real engine."""

import torch
from transformers import Qwen2Config

from foveate.families.base import raster
from foveate.methods.tokens.aim import AIM
from foveate.ops.attention import Heads
from foveate.signals import ProjectorInput, Signals, VisionKeys
from tests.conformance.host import built, prompted, run
from tests.conformance.reading import only


def score(inputs, weights, params):
    logits = inputs["logits"]
    b, h, n, _ = logits.shape
    # Queries that are the logits themselves, against unit keys.
    unit, valid = torch.eye(n).expand(b, h, n, n), torch.ones(b, n, dtype=torch.bool)
    seen = None if params["causal"] else torch.ones(1, 1, n, n, dtype=torch.bool)
    method = AIM(tau_imp=params["tau"], iters=params["iters"], d=params["damping"])
    return {"importance": method.importance(Heads(logits, unit, 1.0, valid, seen))}


def _reduced(x, metric, keep):
    """Frames x (F, N, D) merged to `keep` tokens each, by the likeness of `metric`, None for x."""
    frames, n, d = x.shape
    if keep == n:
        return x
    method = AIM(metric="features" if metric is None else "keys")
    values = {}
    if metric is not None:
        keys = metric.reshape(1, 1, frames * n, -1)
        values = {ProjectorInput(): x.reshape(1, -1, d), VisionKeys(layer=-1): keys}
    tokens = raster(frames, 1, n).tokens(x.reshape(1, -1, d))
    return method.reduce(tokens, Signals(values), keep * frames).features.view(frames, keep, d)


def merge(inputs, weights, params):
    only(params, mode="mean")
    metric = inputs["metric"] if "metric" in inputs else None
    assert (params.get("metric", "x") == "x") == (metric is None)
    x = inputs["x"].flatten(0, -3)
    metric = None if metric is None else metric.flatten(0, -3)
    out, left = {}, x.shape[1]
    for i, r in enumerate(params["rounds"], 1):
        half = left // 2
        left -= max(0, min(r, half))
        out[f"round{i}"] = _reduced(x, metric, left).view(*inputs["x"].shape[:-2], left, -1)
        if r < half:
            # Ours halves as often as it can: rounds that take less begin anew.
            x, metric = _reduced(x, metric, left), metric and _reduced(metric, metric, left)
    return out


def forward(inputs, weights, params):
    layers = params["num_layers"]
    # The official code masks what we drop; where all are alive at first, both rank alike.
    only(params, pagerank_init="all")
    bounds = torch.tensor(params["boundaries"])
    start, length = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
    rows, visual, n = prompted(inputs, start, length)
    assert (bounds[:, 2] == n).all()
    model, call = built(params, weights, rows, visual, Qwen2Config)
    method = AIM(
        keep=AIM.held,
        l1=params["l1"],
        step=params["step"],
        tau_imp=params["tau"],
        iters=params["iters"],
    )
    ran = run(model, call, method, n)
    masks = torch.zeros(len(rows), layers + 1, n, dtype=torch.uint8)
    for i, columns in enumerate([*ran.columns[:layers], ran.columns[layers - 1]]):
        columns = columns.expand(len(rows), -1)
        masks[:, i].scatter_(1, columns, torch.ones_like(columns, dtype=torch.uint8))
    last = ran.columns[layers - 1].expand(len(rows), -1)
    text = ~visual.gather(1, last)
    out = {"prefill_hidden_text": ran.hidden[text].view(len(rows), -1, rows.shape[2])}
    out["layer_masks"] = masks
    return out | ran.new_tokens(inputs)


OPS = {"score": score, "merge": merge, "forward": forward}
