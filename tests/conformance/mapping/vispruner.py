"""VisPruner: the method runs through its own `reduce`."""

from foveate.families.base import raster
from foveate.methods.tokens.vispruner import VisPruner
from foveate.signals import ProjectorInput, Signals, VisionAttention


def select(inputs, weights, params):
    features, attention = inputs["features"], inputs["cls_attn"]
    method = VisPruner(**params)
    tokens = raster(1, 1, features.shape[1]).tokens(features)
    signals = Signals({VisionAttention(): attention, ProjectorInput(): features})
    kept = method.reduce(tokens, signals, method.count(tokens.grid))
    return {"mask": kept.assign >= 0}


OPS = {"select": select}
