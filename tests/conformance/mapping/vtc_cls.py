"""VTC-CLS: the method runs through its own `reduce`."""

from foveate.families.base import raster
from foveate.methods.tokens.vtc_cls import VTCCLS
from foveate.signals import Signals
from tests.conformance.reading import only


def select(inputs, weights, params):
    attention = inputs["cls_attn"]
    only(params, num_layers=len(attention))
    method = VTCCLS(keep=params["keep"], layer=params["start_layer"])
    (need,) = method.needs
    layers = attention[slice(*need.layer)][None]
    tokens = raster(1, 1, attention.shape[2]).tokens(inputs["features"][None])
    kept = method.reduce(tokens, Signals({need: layers}), method.count(tokens.grid))
    return {
        "score": method.score(layers)[0],
        "indices": kept.index[0],
        "tokens": kept.features[0],
    }


OPS = {"select": select}
