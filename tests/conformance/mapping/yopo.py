"""YOPO on the real engine: a LLaVA with the case's decoder, its prompt and two decoded tokens."""

import torch
import transformers as hf

import foveate
from foveate.families.base import raster
from foveate.methods.layers.yopo import YOPO, neighbors
from tests.conformance.host import llava


@torch.no_grad()
def forward(inputs, weights, params):
    start, count = params["visual_start"], params["visual_len"]
    prompt, steps = inputs["inputs_embeds"][0], inputs["decode_embeds"][:, 0]
    rows = torch.cat([prompt, steps])
    visual = torch.zeros(len(rows), dtype=torch.bool)
    visual[start : start + count] = True
    text = hf.LlamaConfig(
        hidden_size=params["hidden"],
        intermediate_size=params["intermediate"],
        num_hidden_layers=params["num_layers"],
        num_attention_heads=params["num_heads"],
        rms_norm_eps=params["rms_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": params["rope_theta"]},
    )
    model, call = llava(text, rows, visual, params["grid"][0])
    found = model.get_decoder().load_state_dict(weights, strict=False)
    assert found.missing_keys == ["embed_tokens.weight"] and not found.unexpected_keys
    method = YOPO(
        keep=0.5,
        headmask=tuple(map(tuple, inputs["headmask"].tolist())),
        **{
            name: params[name]
            for name in (
                "attncut_w",
                "layercut_num",
                "mlpcut_ratio",
                "renormalize",
                "causal_neighbors",
            )
        },
    )
    ids, n = call.pop("input_ids"), len(prompt)
    with foveate.attach(model, method):
        out = model.model(input_ids=ids[:, :n], use_cache=True, **call)
        hidden, decoded = out.last_hidden_state, []
        for column in range(n, len(rows)):
            new = ids[:, column : column + 1]
            out = model.model(input_ids=new, past_key_values=out.past_key_values, use_cache=True)
            decoded.append(out.last_hidden_state)
    return {"prefill_hidden": hidden, "decode_hidden": torch.cat(decoded)}


def neighbor_mask(inputs, weights, params):
    place = raster(1, *params["grid"]).position[None]
    visible = neighbors(place, place, params["window"])[0]
    return {"visible": visible[inputs["rows"].long()], "count": visible.sum(1)}


OPS = {"forward": forward, "neighbor_mask": neighbor_mask}
