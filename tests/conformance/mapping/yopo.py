"""YOPO on the real engine: a LLaVA with the case's decoder, its prompt and decoded tokens."""

import torch

from foveate.families.base import raster
from foveate.methods.layers.yopo import YOPO, neighbors
from tests.conformance.host import decoder, llava, load_decoder, prompted, run

RULES = ("attncut_w", "layercut_num", "mlpcut_ratio", "renormalize", "causal_neighbors")


def forward(inputs, weights, params):
    rows, visual, n = prompted(inputs, params["visual_start"], params["visual_len"])
    model, call = llava(decoder(params), rows, visual, tuple(params["grid"]))
    load_decoder(model, weights)
    method = YOPO(
        keep=0.5,
        headmask=tuple(map(tuple, inputs["headmask"].tolist())),
        **{name: params[name] for name in RULES if name in params},
    )
    ran = run(model, call, method, n)
    out = {"prefill_hidden": ran.hidden}
    if not ran.decoded:
        return out
    decoded = torch.stack(ran.decoded)
    return out | {"decode_hidden": decoded.view_as(inputs["decode_embeds"])}


def neighbor_mask(inputs, weights, params):
    place = raster(1, *params["grid"]).position[None]
    visible = neighbors(place, place, params["window"])[0]
    return {"visible": visible[inputs["rows"].long()], "count": visible.sum(1)}


OPS = {"forward": forward, "neighbor_mask": neighbor_mask}
