"""VisionZip: the method runs through its own `reduce`; packing of crops is its `reading_order`."""

import torch

from foveate.methods.tokens.visionzip import CLASS, CONTEXTUAL, DOMINANT, VisionZip, reading_order
from tests.conformance.encoded import encoded


def compress_encoder(inputs, weights, params):
    dominant, contextual = params["dominant"], params["contextual"]
    tokens, signals = encoded(inputs)
    method = VisionZip(keep=dominant + contextual, contextual=contextual)
    out = method.reduce(tokens, signals, method.count(tokens.grid))
    return {"tokens": out.features, "dominant_indices": out.index[:, 1:dominant]}


def pack_anyres_crops(inputs, weights, params):
    crops, kept = inputs["crop_tokens"], inputs["kept"]
    side, columns = params["side"], params["grid_w"]
    assert len(crops) == params["grid_h"] * columns
    crop = torch.arange(len(crops))[:, None]
    row, column = crop // columns * side + kept // side, crop % columns * side + kept % side
    slot = torch.full(crops.shape[:2], -1)
    slot[:, 1 : params["dominant"]] = row * columns * side + column
    role = [CLASS] + [DOMINANT] * (params["dominant"] - 1) + [CONTEXTUAL] * params["contextual"]
    view = (crop + 1).expand(slot.shape).flatten().tolist()
    order = reading_order(slot.view(1, -1), view, role * len(crops), stitched=True)
    return {"packed": crops.flatten(0, 1)[order[0]]}


OPS = {"compress_encoder": compress_encoder, "pack_anyres_crops": pack_anyres_crops}
