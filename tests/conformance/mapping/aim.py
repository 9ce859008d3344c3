"""AIM: merging by its own `reduce`, pruning by its own part between the layers of a plain Qwen2."""

import torch
from transformers import DynamicCache, Qwen2Config, Qwen2Model

from foveate.engine.ahead import next_heads
from foveate.families.base import raster
from foveate.methods.tokens.aim import AIM
from foveate.ops.attention import Heads, page_rank
from foveate.parts import BoundaryState
from foveate.signals import DecoderHeads, Signals
from tests.conformance.boundary import run_layer


def score(inputs, weights, params):
    logits = inputs["logits"]
    b, h, n, _ = logits.shape
    # Queries that are the logits themselves, against unit keys.
    heads = Heads(logits, torch.eye(n).expand(b, h, n, n), 1.0, torch.ones(b, n, dtype=torch.bool))
    return {"importance": page_rank(heads, params["tau"], params["iters"], params["damping"])}


def merge(inputs, weights, params):
    x = inputs["x"]
    frames, n, d = x.shape
    tokens = raster(frames, 1, n).tokens(x.reshape(1, -1, d))
    out, left = {}, n
    for i, r in enumerate(params["rounds"], 1):
        left -= r
        method = AIM(keep=round(left * frames * AIM.held))
        assert method.count(tokens.grid) == left * frames
        merged = method.reduce(tokens, Signals({}), left * frames).features
        out[f"round{i}"] = merged.view(frames, left, d)
    return out


def _qwen2(params, weights):
    model = Qwen2Model(
        Qwen2Config(
            hidden_size=params["hidden"],
            intermediate_size=params["intermediate"],
            num_hidden_layers=params["num_layers"],
            num_attention_heads=params["num_heads"],
            num_key_value_heads=params["num_kv_heads"],
            rms_norm_eps=params["rms_eps"],
            rope_parameters={"rope_type": "default", "rope_theta": params["rope_theta"]},
            vocab_size=4,
            attn_implementation="sdpa",
        )
    ).eval()
    found = model.load_state_dict(weights, strict=False)
    assert found.missing_keys == ["embed_tokens.weight"] and not found.unexpected_keys
    return model


@torch.no_grad()
def forward(inputs, weights, params):
    layers = params["num_layers"]
    model = _qwen2(params, weights)
    cache = DynamicCache(config=model.config)
    method = AIM(tau_imp=params["tau"], iters=params["iters"])
    pruning = method.parts()[1]
    assert pruning._slope(layers, method.held) == (params["l1"], params["step"])
    assert pruning.positions == "original"
    hidden = inputs["inputs_embeds"]
    n = hidden.shape[1]
    start, end, _ = params["boundaries"][0]
    columns = torch.arange(n)
    masks = torch.ones(1, layers + 1, n, dtype=torch.uint8)
    heads = None
    for i, layer in enumerate(model.layers):
        visual = ((columns >= start) & (columns < end))[None]
        if i in pruning.boundaries(layers):
            state = BoundaryState(
                hidden=hidden,
                valid=torch.ones_like(visual),
                visual=visual,
                item=visual.long() - 1,
                entered=torch.tensor([end - start]),
                last=torch.tensor([hidden.shape[1] - 1]),
                labels=None,
                attention=None,
                signals=Signals({DecoderHeads(): heads}),
            )
            keep = pruning.at_boundary(i, layers, state)
            if keep is not None:
                hidden, columns = hidden[:, keep[0]], columns[keep[0]]
        masks[0, i] = torch.zeros(n).scatter_(0, columns, 1.0)
        tables = model.rotary_emb(hidden, columns[None])
        heads = next_heads(
            layer,
            hidden,
            {"position_embeddings": tables},
            torch.ones(1, len(columns)).bool(),
            None,
            None,
        )
        hidden = run_layer(model, layer, hidden, columns[None], cache)
    masks[:, layers] = masks[:, layers - 1]
    text = (columns < start) | (columns >= end)
    out = {"prefill_hidden_text": model.norm(hidden)[:, text], "layer_masks": masks}
    steps = []
    for step, hidden in enumerate(inputs["decode_embeds"]):
        for layer in model.layers:
            hidden = run_layer(model, layer, hidden, torch.tensor([[n + step]]), cache)
        steps.append(model.norm(hidden))
    return out | {"decode_hidden": torch.stack(steps)}


OPS = {"score": score, "merge": merge, "forward": forward}
