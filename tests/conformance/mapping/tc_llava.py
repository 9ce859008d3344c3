"""TC-LLaVA: ids from the frames that grids and placeholders tell of."""

from dataclasses import replace

import torch

from foveate.methods.layers.tc_llava import TCLLaVA
from foveate.ops.counting import counters
from tests.conformance.attention_call import columns


def positions(inputs, weights, params):
    ids, valid = inputs["input_ids"], inputs["attention_mask"].bool()
    # Padding counts nothing on either side, and the token that opens a picture is a word.
    assert params["padding"] in ("left", "right")
    assert params["vision_start_token_id"] not in (
        params["image_token_id"],
        params["video_token_id"],
    )
    frame = torch.full_like(ids, -1)
    for kind in ("image", "video"):
        where = ids == params[f"{kind}_token_id"]
        merge = params["spatial_merge"]
        sizes = [
            (h // merge) * (w // merge)
            for t, h, w in inputs[f"{kind}_grid"].tolist()
            for _ in range(t)
        ]
        numbers = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.long))
        frame[where] = numbers + 1000 * (kind == "video")
    order, words, frames = counters(frame, valid)
    facts = replace(columns(frame >= 0, valid, order), order=order, words=words, frames=frames)
    gamma = params["gamma"]
    place = TCLLaVA(gamma=gamma).place(facts, {})
    place = order if place is None else place
    moment = TCLLaVA(gamma=1.0).place(facts, {}) - order
    if gamma == int(gamma):
        place = _whole(place)
    # The case puts 1 where nothing is.
    here = {"global_ids": order, "temporal_ids": _whole(moment)}
    out = {name: x.masked_fill(~valid, 1) for name, x in here.items()}
    last = out["temporal_ids"].amax(1)
    return {
        **out,
        "effective_ids": place.masked_fill(~valid, 1 + gamma),
        "temporal_delta": last + 1 - ids.shape[1],
    }


def _whole(x):
    assert torch.equal(x, x.round())
    return x.long()


OPS = {"positions": positions}
