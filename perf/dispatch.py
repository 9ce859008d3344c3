"""Operators launched and host synchronisations per call, with and without a method.

They are counted, not timed, so the result holds on any device: `python -m perf --only dispatch`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import foveate
from foveate.errors import FoveateError
from foveate.method import Method, registered
from perf.fake_cuda import FakeCudaTensor, counted, fake_cuda, placed

IMAGE, SIDE, TOWER, LAYERS = 1, 24, 4, 24
# Operators that launch no kernel.
VIEWS = {
    *("view", "t", "transpose", "expand", "slice", "select", "unsqueeze", "squeeze", "permute"),
    *("detach", "alias", "_unsafe_view", "split", "split_with_sizes", "unbind", "as_strided"),
    *("diagonal", "_reshape_alias", "lift_fresh", "unfold"),
}


class Operators(TorchDispatchMode):
    """Counts the operators that run inside, except views."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        if name not in VIEWS:
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


def model() -> LlavaForConditionalGeneration:
    """A narrow LLaVA with a real model's depth: 576 visual tokens, 24 decoder layers."""
    heads = {"num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
    vision = CLIPVisionConfig(**heads, num_hidden_layers=TOWER, image_size=SIDE * 14, patch_size=14)
    text = LlamaConfig(
        **heads, num_hidden_layers=LAYERS, num_key_value_heads=2, vocab_size=128, pad_token_id=0
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE)
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(config).eval()


def prompt(batch: int = 1) -> dict[str, Tensor]:
    """An image between text tokens; rows after the first are shorter and left-padded."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(2, 100, (batch, 32), generator=generator)
    mask = torch.ones(batch, 32 + SIDE * SIDE, dtype=torch.long)
    words[1:, :4], mask[1:, :4] = 0, 0
    picture = torch.full((batch, SIDE * SIDE), IMAGE)
    return {
        "input_ids": torch.cat([words[:, :16], picture, words[:, 16:]], 1),
        "attention_mask": mask,
        "pixel_values": torch.randn(batch, 3, SIDE * 14, SIDE * 14, generator=generator),
    }


def methods() -> Iterator[tuple[str, Method | None]]:
    """The full model, keep=1.0, and every method that runs here without further parameters."""
    yield "bare", None
    yield "keep-all", foveate.create("divprune", keep=1.0)
    for slug in registered():
        for parameters in ({}, {"weights": "random"}, {"weights": "random", "placement": "all"}):
            try:
                method = foveate.create(slug, **parameters)
                method.check(width=32, layers=LAYERS)
            except FoveateError:
                continue
            yield slug, method
            break


def steps(model: Any, inputs: dict[str, Tensor], count: Callable) -> tuple[Any, Any]:
    """Counts of a prefill and of a decode step, each after an uncounted one."""
    model(**inputs, logits_to_keep=1, use_cache=True)
    with count() as prefill:
        out = model(**inputs, logits_to_keep=1, use_cache=True)
    new, mask = inputs["input_ids"][:, :1], inputs["attention_mask"]

    def step() -> None:
        nonlocal mask
        mask = torch.cat([mask, torch.ones_like(new)], 1)
        model(input_ids=new, attention_mask=mask, past_key_values=out.past_key_values)

    step()
    with count() as decode:
        step()
    return prefill, decode


def waits(method: Method | None, batch: int) -> dict[str, Any]:
    """Host synchronisations in a prefill and in a decode step.

    `after_encoder` counts those between the vision encoder and the first decoder layer, where the
    GPU has no queued work.
    """
    with fake_cuda():
        host = placed(model())
        inputs = {name: FakeCudaTensor(x) for name, x in prompt(batch).items()}
        attachment = None if method is None else foveate.attach(host, method)
        marks: list[int] = []

        @contextmanager
        def watched():
            with counted() as found:
                tower = host.model.vision_tower.register_forward_hook(
                    lambda *_: marks.append(found.total())
                )
                layer = (
                    host.get_decoder()
                    .layers[0]
                    .register_forward_pre_hook(lambda *_: marks.append(found.total()))
                )
                yield found
                tower.remove()
                layer.remove()

        prefill, decode = steps(host, inputs, watched)
        if attachment is not None:
            attachment.detach()
    own = [{k: v for k, v in found.items() if k[1] != "elsewhere"} for found in (prefill, decode)]
    return {
        "prefill": sum(own[0].values()),
        "decode": sum(own[1].values()),
        "after_encoder": marks[1] - marks[0],
        "boundaries": _boundaries(method),
        "lines": [[*k, v] for k, v in sorted(own[0].items(), key=lambda kv: -kv[1])],
        "decode_lines": [[*k, v] for k, v in sorted(own[1].items(), key=lambda kv: -kv[1])],
    }


def _boundaries(method: Method | None) -> int:
    parts = () if method is None else method.parts()
    return sum(len(list(p.boundaries(LAYERS))) for p in parts if hasattr(p, "boundaries"))


def operators(method: Method | None) -> dict[str, int]:
    """Operators of a prefill and of a decode step."""
    host = model()
    with torch.inference_mode():
        attachment = None if method is None else foveate.attach(host, method)
        prefill, decode = steps(host, prompt(), Operators)
        if attachment is not None:
            attachment.detach()
    return {"prefill": prefill.count.total(), "decode": decode.count.total()}


def measure() -> dict[str, Any]:
    """Counts for all methods, one at a time."""
    rows = {}
    for name, method in methods():
        rows[name] = {
            "method": repr(method),
            "operators": operators(method),
            "waits": waits(method, 1),
            "waits_of_4_rows": waits(method, 4)["prefill"],
        }
    return {"layers": LAYERS, "tower": TOWER, "visual_tokens": SIDE * SIDE, "rows": rows}


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = dict(result["rows"])
    bare, dry = rows["bare"]["operators"], rows["bare"]["waits"]["after_encoder"]
    lines = [
        f"A narrow LLaVA with {result['layers']} decoder layers, {result['tower']} vision encoder "
        f"blocks and {result['visual_tokens']} visual tokens. The full model launches "
        f"{bare['prefill']} operators in a prefill and {bare['decode']} in a decode step (views "
        "not counted).",
        "",
        "- **Added operators**: operators that the method adds to these.",
        "- **Host syncs**: synchronisations that foveate's code causes on a GPU, counted on the "
        "CPU with tensors that report a CUDA device.",
        "- **After the encoder**: host syncs between the vision encoder and the first decoder "
        "layer, where the GPU has no queued work, minus those of the full model.",
        "- **Boundaries**: how many times per prefill the method can drop tokens inside the LLM.",
        "",
        "| method | added operators, prefill | added operators, decode step | boundaries "
        "| host syncs, prefill | host syncs, 4 padded rows | after the encoder "
        "| host syncs, decode step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if name == "bare":
            continue
        added = {k: row["operators"][k] - bare[k] for k in bare}
        w = row["waits"]
        lines.append(
            f"| {name} | {added['prefill']:+d} ({100 * added['prefill'] / bare['prefill']:.0f} %) "
            f"| {added['decode']:+d} | {w['boundaries']} | {w['prefill']} "
            f"| {row['waits_of_4_rows']} | {w['after_encoder'] - dry} | {w['decode']} |"
        )
    return "\n".join(lines) + "\n"
