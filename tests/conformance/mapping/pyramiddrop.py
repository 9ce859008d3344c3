"""PyramidDrop: the method's own `at_boundary` between the layers of a plain Llama."""

import torch
from transformers import DynamicCache, LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from foveate.methods.layers.pyramiddrop import PyramidDrop
from foveate.parts import BoundaryState
from foveate.signals import Signals
from tests.conformance.boundary import run_layer


def _llama(params, layers):
    hidden = params["num_heads"] * params.get("head_dim", params.get("hidden", 0))
    return LlamaModel(
        LlamaConfig(
            hidden_size=params.get("hidden", hidden),
            intermediate_size=params.get("intermediate", 8),
            num_hidden_layers=layers,
            num_attention_heads=params["num_heads"],
            num_key_value_heads=params["num_heads"],
            rms_norm_eps=params["rms_eps"],
            rope_parameters={"rope_type": "default", "rope_theta": params["rope_theta"]},
            vocab_size=4,
            attn_implementation="sdpa",
        )
    ).eval()


def _attention(model, layer, hidden, positions, rows):
    """What the queries of `layer` at columns `rows` (B, R) pay all columns: (B, H, R, N)."""
    b, n, _ = hidden.shape
    normed = layer.input_layernorm(hidden)
    split = (b, n, -1, layer.self_attn.head_dim)
    q = layer.self_attn.q_proj(normed).view(split).transpose(1, 2)
    k = layer.self_attn.k_proj(normed).view(split).transpose(1, 2)
    q, k = apply_rotary_pos_emb(q, k, *model.rotary_emb(hidden, positions))
    logits = (q @ k.mT) * layer.self_attn.scaling
    future = torch.ones(n, n, dtype=torch.bool).triu(1)
    probabilities = logits.masked_fill(future, float("-inf")).softmax(-1)
    return probabilities[torch.arange(b)[:, None], :, rows].transpose(1, 2)


def _kept(method, model, layer, k, layers, hidden, positions, params, visual_now, labels=None):
    """Columns that stay at boundary k, ascending."""
    n, start = hidden.shape[1], params["visual_start"]
    visual = torch.zeros(1, n, dtype=torch.bool)
    visual[:, start : start + visual_now] = True
    state = BoundaryState(
        hidden=hidden,
        valid=torch.ones_like(visual),
        visual=visual,
        item=visual.long() - 1,
        entered=torch.tensor([params["visual_original"]]),
        last=torch.tensor([params["prompt_text_len"] + visual_now - 1]),
        labels=labels,
        attention=lambda rows: _attention(model, layer, hidden, positions, rows),
        signals=Signals({}),
    )
    keep = method.at_boundary(k, layers, state)
    return torch.arange(n) if keep is None else keep[0].nonzero()[:, 0]


@torch.no_grad()
def rank_drop(inputs, weights, params):
    ratios = tuple(params["ratios"][1:])
    stages = tuple(range(1, len(ratios) + 1))
    model = _llama(params, 1)
    layer = model.layers[0]
    layer.input_layernorm.weight.copy_(weights["input_layernorm.weight"])
    layer.self_attn.q_proj.weight.copy_(weights["q_proj.weight"])
    layer.self_attn.k_proj.weight.copy_(weights["k_proj.weight"])
    method = PyramidDrop(layer_list=stages, image_token_ratio_list=ratios)
    hidden = inputs["hidden"]
    now = int(params["visual_original"] * params["ratios"][params["stage"]])
    kept = _kept(
        method,
        model,
        layer,
        stages[params["stage"]],
        len(stages) + 1,
        hidden,
        inputs["position_ids"],
        params,
        now,
        inputs.get("labels"),
    )
    assert method.positions == "packed"
    return {
        "kept": kept,
        "position_ids": torch.arange(len(kept))[None],
        "hidden": hidden[:, kept],
    }


@torch.no_grad()
def forward(inputs, weights, params):
    layers, stages = params["num_layers"], tuple(params["layer_list"])
    ratios = tuple(params["ratios"][1:])
    model = _llama(params, layers)
    missing = model.load_state_dict(weights, strict=False)
    assert missing.missing_keys == ["embed_tokens.weight"] and not missing.unexpected_keys
    method = PyramidDrop(layer_list=stages, image_token_ratio_list=ratios)
    assert method.boundaries(layers) == stages
    cache, hidden = DynamicCache(config=model.config), inputs["inputs_embeds"]
    now = params["visual_original"]
    for i, layer in enumerate(model.layers):
        positions = torch.arange(hidden.shape[1])[None]
        if i in stages:
            kept = _kept(method, model, layer, i, layers, hidden, positions, params, now)
            now -= hidden.shape[1] - len(kept)
            hidden, positions = hidden[:, kept], positions[:, : len(kept)]
        hidden = run_layer(model, layer, hidden, positions, cache)
    lengths = [cache.get_seq_length(i) for i in range(layers)]
    out = {
        "prefill_hidden": model.norm(hidden),
        "cache_len": torch.tensor(lengths),
        "last_layer_keys": cache.layers[-1].keys,
    }
    steps = []
    for embedded in inputs["decode_embeds"]:
        hidden = embedded[None]
        for i, layer in enumerate(model.layers):
            # Packed positions go on behind what this layer holds.
            positions = torch.tensor([[cache.get_seq_length(i)]])
            hidden = run_layer(model, layer, hidden, positions, cache)
        steps.append(model.norm(hidden)[0])
    return out | {"decode_hidden": torch.stack(steps)}


OPS = {"rank_drop": rank_drop, "forward": forward}
