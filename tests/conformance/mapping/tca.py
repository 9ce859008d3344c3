"""TCA: a CLIP block run as the engine runs it, coreset averages, a stream through the adapter."""

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from foveate.engine.dual import DualEncoder
from foveate.engine.merging import Merger
from foveate.methods.encoders.tca import TCA
from foveate.ops.coreset import coreset

NAMES = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def tower(width, heads, weights):
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=weights["mlp.c_fc.bias"].shape[0],
        num_attention_heads=heads,
        num_hidden_layers=2,
        image_size=8,
        patch_size=8,
        attn_implementation="sdpa",
    )
    model = CLIPVisionModel(config).eval()
    state = {}
    for kind in ("weight", "bias"):
        made = weights[f"attn.in_proj_{kind}"].chunk(3)
        state |= {f"self_attn.{n}_proj.{kind}": v for n, v in zip("qkv", made, strict=True)}
        state |= {f"{ours}.{kind}": weights[f"{theirs}.{kind}"] for theirs, ours in NAMES.items()}
    model.encoder.layers[1].load_state_dict(state)
    return model


@torch.no_grad()
def condense_block(inputs, weights, params):
    x = inputs["x"].transpose(0, 1)
    model = tower(x.shape[2], params["num_heads"], weights)
    method = TCA(delta=params["drop_rate"], centers=params["num_centers"], drop_loc=(6,))
    part = method.adapter()
    part.draw = lambda n, b: inputs["first_center"]
    if "anchors" in inputs:
        part.anchors = inputs["anchors"][:, None]
    holder = type("Model", (), {"vision_model": model})
    merger = Merger(DualEncoder(holder, "clip", True), "image", [part])
    block = model.encoder.layers[1]
    with merger.active():
        merger.size, merger.history, merger.entered = x.new_ones(x.shape[:2]), [None], 49
        out = block(x, None)
    assign = merger.history[-1][0, 1:]
    place = assign.new_empty(int(assign.max()) + 1)
    place[assign.flip(0)] = torch.arange(len(assign)).flip(0)
    kept = len(place) - 1 - params["num_centers"]
    return {"x": out.transpose(0, 1), "kept_indices": place[1:kept]}


def coreset_average(inputs, weights, params):
    x = inputs["tokens"].transpose(0, 1)
    k = params["num_centers"]
    into, weight = coreset(x, k, inputs["first_center"])
    merged = x.new_zeros(len(x), k, x.shape[2])
    merged.scatter_add_(1, into[..., None].expand_as(x), x * weight[..., None])
    return {"merged": merged.transpose(0, 1)}


def reservoir_stream(inputs, weights, params):
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
