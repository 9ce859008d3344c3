"""FourierVLM: the method runs through its own `reduce`; the transform is the one it is made of."""

import torch

from foveate.families.base import raster
from foveate.methods.tokens.fourier_vlm import FourierVLM
from foveate.ops.dct import dct_matrix, idct_matrix
from foveate.signals import ProjectorInput, Signals


def _compressed(method, layout, features):
    tokens = layout.tokens(features)
    signals = Signals({ProjectorInput(): features})
    return method.reduce(tokens, signals, method.count(tokens.grid)).features


def compress(inputs, weights, params):
    layout = raster(1, params["grid_h"], params["grid_w"])
    reserve = params["reserve_h"], params["reserve_w"]
    method = FourierVLM(reserve=reserve, norm=params["norm"], preserve_mean=False)
    return {"tokens": _compressed(method, layout, inputs["features"])}


def transform(inputs, weights, params):
    x, norm = inputs["x"], params["norm"]

    def both(matrix):
        rows, columns = (matrix(n, norm).to(x) for n in x.shape[-2:])
        return rows @ x @ columns.T

    return {"dct": both(dct_matrix), "idct": both(idct_matrix)}


def compress_qwen(inputs, weights, params):
    method = FourierVLM(ratio=params["ratio"], norm=params["norm"], preserve_mean=False)
    tokens, grids, done = [], [], 0
    for t, h, w in inputs["grid_thw"].tolist():
        layout = raster(t, h // 2, w // 2)
        own = inputs["embeds"][done : done + layout.n][None]
        done += layout.n
        tokens.append(_compressed(method, layout, own)[0])
        bands = method._bands((h // 2, w // 2), 0)
        grids.append([t, 2 * len(bands), 2 * bands[0]])
    return {"tokens": torch.cat(tokens), "grid_thw": torch.tensor(grids)}


OPS = {"compress": compress, "dct2": transform, "compress_qwen": compress_qwen}
