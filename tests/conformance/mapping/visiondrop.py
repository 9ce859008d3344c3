"""VisionDrop: its own `reduce`, and its own part in front of a plain Llama layer."""

import torch

from foveate.engine.decoder.columns import merge_columns
from foveate.methods.tokens.visiondrop import VisionDrop
from tests.conformance.boundary import next_layer, one_sample, staying
from tests.conformance.encoded import encoded


def compress_encoder(inputs, weights, params):
    tokens, signals = encoded(inputs)
    method = VisionDrop(dominant=params["dominant"], contextual=params["contextual"])
    out = method.reduce(tokens, signals, method.count(tokens.grid))
    return {"tokens": out.features, "dominant_indices": out.index[:, 1 : params["dominant"]]}


@torch.no_grad()
def llm_stage(inputs, weights, params):
    hidden = inputs["hidden"][None]
    columns = torch.arange(hidden.shape[1])[None]
    ahead = next_layer(params, weights, hidden, columns)
    state = one_sample(hidden, params["image_start"], params["image_len"], {}, **ahead)
    targets = ((params["dominant"], params["contextual"]),)
    part = VisionDrop(layer_list=(1,), image_token_list=targets).parts()[1]
    assert part.positions == "native", "which numbers the columns of a Llama anew"
    merge = part.at_boundary(1, 2, state)
    kept = staying(merge, state)
    hidden = hidden if merge is None else merge_columns(hidden, merge)
    return {"hidden": hidden[0, kept], "position_ids": torch.arange(len(kept))}


OPS = {"compress_encoder": compress_encoder, "llm_stage": llm_stage}
