"""DyVTE: its gates, its decisions on the real engine, and the labels of its own recipe."""

import torch
from torch.nn import functional as F

from foveate.methods.layers.dyvte import DyVTE, Gates
from foveate.trained import lent
from foveate.training.batches import Batch
from foveate.training.recipes.dyvte import DyVTERecipe
from tests.conformance.host import built, prompted, run
from tests.conformance.reading import only


def _gates(weights, prefix, width, layers):
    """The gates of a case; where it has none, one that never opens."""
    names = [f"{prefix}{layer}" for layer in range(layers)]
    hidden = next(weights[f"{n}.w1.weight"] for n in names if f"{n}.w1.weight" in weights)
    gates = Gates(width, layers + 1, len(hidden))
    for name, gate in zip(names, gates.gates, strict=True):
        for i, part in ((0, "w1"), (2, "w2")):
            if f"{name}.{part}.weight" in weights:
                gate[i].weight.data = weights[f"{name}.{part}.weight"]
            else:
                gate[i].weight.data.zero_()
    return gates


def _model(weights, params, prefix, rows, visual):
    own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    decoder = {k: v for k, v in own.items() if "visual_gates" not in k}
    return built(params, decoder, rows, visual)


@torch.no_grad()
def gate(inputs, weights, params):
    only(params, act="gelu (erf)", bias=False, hidden=len(weights["w1.weight"]))
    named = {f"0.{name}": value for name, value in weights.items()}
    return {"logits": _gates(named, "", inputs["feat"].shape[1] // 2, 1)(0, inputs["feat"])}


@torch.no_grad()
def forward(inputs, weights, params):
    only(params, positions="kept")
    layers, start, length = params["num_layers"], params["visual_start"], params["visual_len"]
    rows, visual, n = prompted(inputs, start, length)
    model, call = _model(weights, params, "", rows, visual)
    gates = _gates(weights, "visual_gates_router.", params["hidden"], layers)
    with lent("dyvte", gates):
        ran = run(model, call, DyVTE(weights="random"), n)
    # What leaves behind the last layer is in all caches.
    left = next((i for i, held in enumerate(ran.lengths) if held < n), layers)
    last = ran.columns[layers - 1].expand(len(rows), -1)
    text = ~visual.gather(1, last)
    out = {
        "exit_layer": torch.tensor([left - 1]),
        "prefill_hidden_text": ran.hidden[text].view(len(rows), -1, rows.shape[2]),
        "cache_len": torch.tensor(ran.lengths),
    }
    return out | ran.new_tokens(inputs)


@torch.no_grad()
def train_step(inputs, weights, params):
    labels, head = inputs["labels"], weights["lm_head.weight"]
    rows, visual, n = prompted(inputs, params["visual_start"], params["visual_len"])
    only(params, vocab=len(head))
    model, call = _model(weights, params, "model.", rows, visual)
    model.lm_head.weight.data = head
    call["attention_mask"] = torch.ones_like(labels)
    told = (labels != -100).long()
    batch = Batch(call, labels, n - int(told.argmax(1).min()))
    layer = params["exit_layer"]
    gates = _gates(weights, "model.visual_gates_router.", params["hidden"], params["num_layers"])
    recipe = DyVTERecipe(agreement=params["agreement"], loss_ratio=params["loss_ratio"])
    logits, target = recipe.judged(model, gates, batch, [layer])
    return {
        "gate_logits": logits,
        "gate_labels": target,
        "loss": F.cross_entropy(logits, target)[None],
    }


OPS = {"gate": gate, "forward": forward, "train_step": train_step}
