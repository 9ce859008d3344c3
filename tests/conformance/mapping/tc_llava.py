"""TC-LLaVA: ids from the frames that grids and placeholders tell of."""

import torch

from foveate.methods.layers.tc_llava import TCLLaVA
from foveate.ops.counting import counters
from tests.conformance.attending import columns


def positions(inputs, weights, params):
    ids, valid = inputs["input_ids"], inputs["attention_mask"].bool()
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
    facts = columns(frame >= 0, valid, order)
    facts = type(facts)(**{**vars(facts), "order": order, "words": words, "frames": frames})
    place = TCLLaVA(gamma=params["gamma"]).place(facts, {})
    # The case puts 1 where nothing is.
    here = {"global_ids": order, "temporal_ids": place - order}
    out = {name: x.masked_fill(~valid, 1) for name, x in here.items()}
    last = out["temporal_ids"].amax(1)
    return {
        **out,
        "effective_ids": place.masked_fill(~valid, 2),
        "temporal_delta": last + 1 - ids.shape[1],
    }


OPS = {"positions": positions}
