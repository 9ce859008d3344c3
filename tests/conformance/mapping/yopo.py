"""YOPO on the real engine: a LLaVA with the case's decoder, its prompt and decoded tokens."""

from foveate.families.base import raster
from foveate.methods.layers.yopo import YOPO, neighbors
from tests.conformance.host import built, prompted, run

RULES = ("attncut_w", "layercut_num", "mlpcut_ratio", "renormalize", "causal_neighbors")


def forward(inputs, weights, params):
    rows, visual, n = prompted(inputs, params["visual_start"], params["visual_len"])
    model, call = built(params, weights, rows, visual, grid=tuple(params["grid"]))
    method = YOPO(
        keep=0.5,
        headmask=tuple(map(tuple, inputs["headmask"].tolist())),
        **{name: params[name] for name in RULES if name in params},
    )
    ran = run(model, call, method, n)
    return {"prefill_hidden": ran.hidden, **ran.new_tokens(inputs)}


def neighbor_mask(inputs, weights, params):
    place = raster(1, *params["grid"]).position[None]
    visible = neighbors(place, place, params["window"])[0]
    return {"visible": visible[inputs["rows"].long()], "count": visible.sum(1)}


OPS = {"forward": forward, "neighbor_mask": neighbor_mask}
