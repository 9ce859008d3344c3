"""TCA: blocks of a CLIP tower run as the engine runs them, a stream through the adapter."""

import torch

from foveate.engine.tower.merging import fused
from foveate.methods.encoders.tca import TCA
from foveate.parts import BlockState
from tests.conformance.reading import only
from tests.conformance.tower import Tower, clip_layer, in_halves

NAMES = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def _layer(x, weights, params):
    intermediate = len(weights["mlp.c_fc.bias"])
    layer = clip_layer(x.shape[2], params["num_heads"], intermediate, act="quick_gelu")
    layer.load_state_dict(in_halves(weights, "attn.in_proj", NAMES))
    return layer


def condense_block(inputs, weights, params):
    x = inputs["x"].transpose(0, 1)
    method = TCA(delta=params["drop_rate"], centers=params["num_centers"], drop_loc=(6,))
    part = method.adapter()
    part.draw = lambda n, b: inputs["first_center"]
    if "anchors" in inputs:
        part.anchors = inputs["anchors"][:, None]
    # The second of two blocks: the first one has no layer in front of it.
    blocks = [_layer(x, weights, params) for _ in range(2)]
    tower = Tower(blocks, part, classed=True)
    out = tower.run(x, block=1)
    assign = tower.assign[0]
    place = assign.new_empty(int(assign.max()) + 1)
    place[assign.flip(0)] = torch.arange(len(assign)).flip(0)
    kept = out.shape[1] - 2 - params["num_centers"]
    inputs["first_center"]
    return {"x": out.transpose(0, 1), "kept_indices": place[1 : 1 + kept] - 1}


def coreset_average(inputs, weights, params):
    x = inputs["tokens"].transpose(0, 1)
    (b, doubted, c), k = x.shape, params["num_centers"]
    # As many patches in front of the layer as have it doubt these: one it keeps, the rest go.
    method = TCA(keep=k + 2, centers=k, drop_loc=(6,))
    plans = ((n, method.plan(0, 1, n, n)) for n in range(k + 3, 3 * doubted + 9))
    n = next(n for n, plan in plans if plan == (1, doubted, k))
    hidden = torch.cat([x.new_zeros(b, 2, c), x, x.new_zeros(b, n - 1 - doubted, c)], 1)
    size = x.new_ones(b, 1 + n)
    paid = torch.linspace(1, 0, 1 + n).expand(b, 1, -1)
    state = BlockState(hidden, hidden[:, None], size, True, n, lambda: paid)
    part = method.adapter()
    part.draw = lambda n, b: inputs["first_center"]
    out, _ = fused(part.merge(0, 1, state), hidden, size)
    return {"merged": out[:, 2 : 2 + k].transpose(0, 1)}


def reservoir_stream(inputs, weights, params):
    only(params, num_layers=inputs["cls_tokens"].shape[1])
    method = TCA(
        reservoir_size=params["reservoir_size"],
        scale=params["scale"],
        lam=params["lambd"],
        beta=params["beta"],
    )
    stream = method.adapter()
    rows = zip(*(inputs[k] for k in ("pred", "entropy", "features", "cls_tokens")), strict=True)
    made = [stream.insert(int(c), e, f, s, params["num_classes"]) for c, e, f, s in rows]
    kept = torch.stack([stream.rows["label"], stream.rows["number"]], 1)
    out = {"logit_correction": torch.stack(made), "reservoir": kept}
    return out if stream.anchors is None else out | {"anchor_bank": stream.anchors}


OPS = {
    "condense_block": condense_block,
    "coreset_average": coreset_average,
    "reservoir_stream": reservoir_stream,
}
