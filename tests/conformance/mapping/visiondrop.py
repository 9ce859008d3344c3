"""VisionDrop: its own `reduce`, and its own part in front of a plain Llama layer."""

import torch
from transformers import LlamaConfig, LlamaModel

from foveate.engine.ahead import next_heads
from foveate.engine.columns import merged
from foveate.families.base import raster
from foveate.methods.tokens.visiondrop import VisionDrop
from foveate.signals import ClassState, ProjectorInput, Signals, VisionAttention, VisionKeys
from tests.conformance.boundary import one_sample


def compress_encoder(inputs, weights, params):
    hidden, attention = inputs["hidden"], inputs["cls_attn"]
    tokens = raster(1, 1, attention.shape[2]).tokens(hidden[:, 1:])
    signals = Signals(
        {
            VisionAttention(): attention,
            VisionKeys(): inputs["metric"][:, None, 1:],
            ProjectorInput(): hidden[:, 1:],
            ClassState(): hidden[:, :1],
        }
    )
    method = VisionDrop(dominant=params["dominant"], contextual=params["contextual"])
    out = method.reduce(tokens, signals, method.count(tokens.grid))
    return {"tokens": out.features, "dominant_indices": out.index[:, 1 : params["dominant"]]}


@torch.no_grad()
def llm_stage(inputs, weights, params):
    hidden = inputs["hidden"][None]
    n, start = hidden.shape[1], params["image_start"]
    model = LlamaModel(
        LlamaConfig(
            hidden_size=hidden.shape[2],
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=params["num_heads"],
            num_key_value_heads=params["num_kv_heads"],
            head_dim=params["head_dim"],
            rms_norm_eps=params["rms_eps"],
            rope_parameters={"rope_type": "default", "rope_theta": params["rope_theta"]},
            vocab_size=4,
        )
    )
    layer = model.layers[0]
    layer.input_layernorm.weight.copy_(weights["input_layernorm.weight"])
    layer.self_attn.q_proj.weight.copy_(weights["q_proj.weight"])
    layer.self_attn.k_proj.weight.copy_(weights["k_proj.weight"])
    columns = torch.arange(n)[None]
    visual = (columns >= start) & (columns < start + params["image_len"])
    tables = model.rotary_emb(hidden, columns)
    state = one_sample(
        hidden,
        start,
        params["image_len"],
        {},
        heads=lambda: next_heads(
            layer, hidden, {"position_embeddings": tables}, torch.ones_like(visual), None, None
        ),
    )
    targets = ((params["dominant"], params["contextual"]),)
    part = VisionDrop(layer_list=(1,), image_token_list=targets).parts()[1]
    assert part.positions == "packed"
    merge = part.at_boundary(1, 2, state)
    kept = (merge.into == columns)[0].nonzero()[:, 0]
    kept = kept[merge.place[0, kept].argsort(stable=True)]
    return {
        "hidden": merged(hidden, merge)[0, kept],
        "position_ids": torch.arange(len(kept)),
    }


OPS = {"compress_encoder": compress_encoder, "llm_stage": llm_stage}
