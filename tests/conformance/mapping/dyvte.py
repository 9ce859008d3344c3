"""DyVTE: its gates, and its own decisions between the layers of a plain Llama."""

import torch
from torch.nn import functional as F
from transformers import DynamicCache, LlamaConfig, LlamaModel

from foveate.methods.layers.dyvte import DyVTE, Gates, exit_labels, text_features
from foveate.trained import lent
from tests.conformance.boundary import one_sample, run_layer


def _gates(weights, prefix, width, layers):
    gates = Gates(width, layers, weights[f"{prefix}0.w1.weight"].shape[0])
    for layer, gate in enumerate(gates.gates):
        for i, name in ((0, "w1"), (2, "w2")):
            gate[i].weight.data = weights[f"{prefix}{layer}.{name}.weight"]
    return gates


def _llama(weights, params, prefix=""):
    model = LlamaModel(
        LlamaConfig(
            hidden_size=params["hidden"],
            intermediate_size=params["intermediate"],
            num_hidden_layers=params["num_layers"],
            num_attention_heads=params["num_heads"],
            num_key_value_heads=params["num_heads"],
            rms_norm_eps=params["rms_eps"],
            rope_parameters={"rope_type": "default", "rope_theta": params["rope_theta"]},
            vocab_size=4,
            attn_implementation="sdpa",
        )
    ).eval()
    own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    found = model.load_state_dict(
        {k: v for k, v in own.items() if "visual_gates" not in k}, strict=False
    )
    assert found.missing_keys == ["embed_tokens.weight"] and not found.unexpected_keys
    return model


def gate(inputs, weights, params):
    named = {f"0.{name}": value for name, value in weights.items()}
    return {"logits": _gates(named, "", inputs["feat"].shape[1] // 2, 2)(0, inputs["feat"])}


@torch.no_grad()
def forward(inputs, weights, params):
    layers, start, length = params["num_layers"], params["visual_start"], params["visual_len"]
    model = _llama(weights, params)
    cache = DynamicCache(config=model.config)
    gates = _gates(weights, "visual_gates_router.", params["hidden"], layers)
    method = DyVTE(weights="random")
    assert method.positions == "original" and method.boundaries(layers) == tuple(range(1, layers))
    hidden, n = inputs["inputs_embeds"], inputs["inputs_embeds"].shape[1]
    columns, left = torch.arange(n), layers
    for i, layer in enumerate(model.layers):
        if i and left == layers:
            with lent("dyvte", gates):
                keep = method.at_boundary(i, layers, one_sample(hidden, start, length, {}))
            if keep is not None:
                hidden, columns, left = hidden[:, keep[0]], columns[keep[0]], i
        hidden = run_layer(model, layer, hidden, columns[None], cache)
    text = (columns < start) | (columns >= start + length)
    out = {
        "exit_layer": torch.tensor([left - 1]),
        "prefill_hidden_text": model.norm(hidden)[:, text],
        "cache_len": torch.tensor([layer.get_seq_length() for layer in cache.layers]),
    }
    steps = []
    for step, embed in enumerate(inputs["decode_embeds"]):
        hidden = embed[None]
        for layer in model.layers:
            hidden = run_layer(model, layer, hidden, torch.tensor([[n + step]]), cache)
        steps.append(model.norm(hidden)[0])
    return out | {"decode_hidden": torch.stack(steps)}


@torch.no_grad()
def train_step(inputs, weights, params):
    layers, start = params["num_layers"], params["visual_start"]
    model = _llama(weights, params, "model.")
    head = weights["lm_head.weight"]
    x, labels = inputs["inputs_embeds"], inputs["labels"]
    columns = torch.arange(x.shape[1])
    visual = ((columns >= start) & (columns < start + params["visual_len"])).expand(len(x), -1)

    def run(hidden, columns, first, last):
        for layer in model.layers[first:last]:
            where = columns.expand(len(hidden), -1)
            hidden = run_layer(model, layer, hidden, where, None)
        return hidden

    behind = params["exit_layer"] + 1
    hidden = run(x, columns, 0, behind)
    asks = labels == -100
    feat = text_features(hidden, visual, asks, asks.long().cumsum(1).argmax(1))
    full = model.norm(run(hidden, columns, behind, layers)) @ head.T
    text = ~visual[0]
    out = model.norm(run(hidden[:, text], columns[text], behind, layers)) @ head.T
    told = labels[:, text][:, 1:]
    target = exit_labels(
        full[:, text][:, :-1], out[:, :-1], told, params["agreement"], params["loss_ratio"]
    )
    gates = _gates(weights, "model.visual_gates_router.", params["hidden"], layers)
    logits = gates(params["exit_layer"], feat)
    return {
        "gate_logits": logits,
        "gate_labels": target,
        "loss": F.cross_entropy(logits, target)[None],
    }


OPS = {"gate": gate, "forward": forward, "train_step": train_step}
