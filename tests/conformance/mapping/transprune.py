"""TransPrune: the method's own `at_boundary` between the watched layers of a plain Llama."""

from functools import partial

import torch
from transformers import DynamicCache, LlamaConfig, LlamaModel

from foveate.engine.ahead import next_heads
from foveate.engine.transitions import watched
from foveate.methods.layers.transprune import TransPrune
from foveate.ops.transition import transition
from foveate.signals import DecoderTransition
from tests.conformance.boundary import one_sample, run_layer


def _llama(params, layers):
    hidden = params.get("hidden") or params["num_heads"] * params["head_dim"]
    return LlamaModel(
        LlamaConfig(
            hidden_size=hidden,
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


def _state(model, layer, hidden, positions, params, visual_now, signals, notes):
    valid = torch.ones(1, hidden.shape[1], dtype=torch.bool)
    tables = model.rotary_emb(hidden, positions)
    state = one_sample(hidden, params["visual_start"], visual_now, signals)
    state.entered = torch.tensor([params["visual_original"]])
    state.last = torch.tensor([params["prompt_text_len"] + visual_now - 1])
    state.heads = lambda: next_heads(
        layer, hidden, {"position_embeddings": tables}, valid, None, None
    )
    state.notes = notes
    return state


def ttv(inputs, weights, params):
    seen = transition(inputs["before"], inputs["after"])
    nothing = torch.zeros_like(seen)
    state = one_sample(
        inputs["before"], 0, 1, {DecoderTransition(0): torch.stack([seen, nothing], 1)}
    )
    assert TransPrune().direction == "signed" and TransPrune().softmax_over == "all"
    return {"ttv": TransPrune()._ttv(0, state)}


@torch.no_grad()
def rank_drop(inputs, weights, params):
    ratios = tuple(params["ratios"][1:])
    stages = tuple(range(2, len(ratios) + 2))
    model = _llama(params, 1)
    layer = model.layers[0]
    layer.input_layernorm.weight.copy_(weights["input_layernorm.weight"])
    layer.self_attn.q_proj.weight.copy_(weights["q_proj.weight"])
    layer.self_attn.k_proj.weight.copy_(weights["k_proj.weight"])
    method = TransPrune(
        pruning_layer_list=stages,
        accumulating_layer_list=(1, 2),
        image_token_ratio_list=ratios,
        alpha=params["alpha"],
        eps=params["eps"],
    )
    # Sub-modules that turn nothing, and stretch so that each layer's TTV is the given one.
    n = inputs["hidden"].shape[1]
    stretch = inputs["ttv_history"] * n
    seen = {
        DecoderTransition(i): torch.stack(
            [torch.stack([row, torch.ones(n)], -1), torch.tensor([0.0, 1.0]).expand(n, 2)]
        )[None]
        for i, row in enumerate(stretch)
    }
    now = int(params["visual_original"] * params["ratios"][params["stage"]])
    state = _state(model, layer, inputs["hidden"], inputs["position_ids"], params, now, seen, {})
    keep = method.at_boundary(stages[params["stage"]], len(stages) + 2, state)
    kept = keep[0].nonzero()[:, 0]
    assert method.positions == "packed"
    return {
        "kept": kept,
        "position_ids": torch.arange(len(kept))[None],
        "ttv_history": inputs["ttv_history"][:, kept],
    }


@torch.no_grad()
def forward(inputs, weights, params):
    layers, stages = params["num_layers"], tuple(params["pruning_layers"])
    model = _llama(params, layers)
    found = model.load_state_dict(weights, strict=False)
    assert found.missing_keys == ["embed_tokens.weight"] and not found.unexpected_keys
    method = TransPrune(
        pruning_layer_list=stages,
        accumulating_layer_list=tuple(params["accumulating_layers"]),
        image_token_ratio_list=tuple(params["ratios"][1:]),
    )
    cache, hidden = DynamicCache(config=model.config), inputs["inputs_embeds"]
    now, seen, notes = params["visual_original"], {}, {}
    for i, layer in enumerate(model.layers):
        positions = torch.arange(hidden.shape[1])[None]
        if i in stages:
            state = _state(model, layer, hidden, positions, params, now, seen, notes)
            keep = method.at_boundary(i, layers, state)
            kept = keep[0].nonzero()[:, 0]
            now -= hidden.shape[1] - len(kept)
            hidden, positions = hidden[:, kept], positions[:, : len(kept)]
            seen = {need: values[:, :, kept] for need, values in seen.items()}
        with watched(layer, partial(seen.__setitem__, DecoderTransition(i))):
            hidden = run_layer(model, layer, hidden, positions, cache)
    lengths = [cache.get_seq_length(i) for i in range(layers)]
    out = {"prefill_hidden": model.norm(hidden), "cache_len": torch.tensor(lengths)}
    steps = []
    for embedded in inputs["decode_embeds"]:
        hidden = embedded[None]
        for i, layer in enumerate(model.layers):
            # Packed positions go on behind what this layer holds.
            positions = torch.tensor([[cache.get_seq_length(i)]])
            hidden = run_layer(model, layer, hidden, positions, cache)
        steps.append(model.norm(hidden)[0])
    return out | {"decode_hidden": torch.stack(steps)}


OPS = {"ttv": ttv, "rank_drop": rank_drop, "forward": forward}
