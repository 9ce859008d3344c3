"""A LLaVA with given embeddings of text and images, so that a case runs on the real engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

import foveate
from foveate.method import Method


class Given(nn.Module):
    """Replaces the projector: returns given features, (B, n, D)."""

    def __init__(self, features: Tensor):
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        return self.features


class Blank(nn.Module):
    """Replaces the embeddings of the vision encoder: a class token and `n` patches, all zero."""

    def __init__(self, n: int, width: int):
        super().__init__()
        self.shape = n + 1, width

    def forward(self, pixel_values: Tensor, **_: Any) -> Tensor:
        return torch.zeros(len(pixel_values), *self.shape)


def llava(
    text: hf.PretrainedConfig, rows: Tensor, visual: Tensor, grid: tuple[int, int] | None = None
) -> tuple[Any, dict]:
    """A model and its arguments whose prompt embeddings are `rows`.

    Args:
        text: configuration of the LLM.
        rows: embeddings of the prompts, (B, N, D).
        visual: which of them belong to the one image of each prompt, bool (B, N).
        grid: rows and columns of its patches; None is one row.
    """
    count = int(visual[0].sum())
    h, w = (1, count) if grid is None else grid
    assert (visual.sum(1) == h * w).all(), "every prompt has a picture of this grid"
    tower = hf.CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, patch_size=2
    )
    words = int((~visual).sum())
    text.vocab_size = words + 1
    config = hf.LlavaConfig(
        vision_config=tower, text_config=text, image_token_id=words, vision_feature_layer=-1
    )
    model = hf.LlavaForConditionalGeneration(config).eval()
    model.model.vision_tower.embeddings = Blank(h * w, 8)
    model.model.multi_modal_projector = Given(rows[visual].unflatten(0, (len(rows), h * w)))
    ids = torch.full(visual.shape, words)
    ids[~visual] = torch.arange(words)
    with torch.no_grad():
        model.get_input_embeddings().weight[:words] = rows[~visual]
    return model, {"input_ids": ids, "pixel_values": torch.zeros(len(rows), 3, 2 * h, 2 * w)}


def built(
    params: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    rows: Tensor,
    visual: Tensor,
    kind: type = hf.LlamaConfig,
    grid: tuple[int, int] | None = None,
) -> tuple[Any, dict]:
    """A `llava` with the decoder of a case, whose weights do not include the embeddings."""
    model, call = llava(decoder(params, kind), rows, visual, grid)
    found = model.get_decoder().load_state_dict(dict(weights), strict=False)
    assert found.missing_keys == ["embed_tokens.weight"] and not found.unexpected_keys, found
    return model, call


@dataclass
class Ran:
    """The result of a prefill and of decode steps.

    Attributes:
        hidden: after the final norm, (B, N', D).
        columns: position ids (B, n) of the tokens that each layer processes, in order.
        lengths: tokens in each layer's cache after the prefill.
        keys: in the last layer's cache after the prefill, (B, H, n, d).
        decoded: after the final norm, one (B, 1, D) per decode step.
    """

    hidden: Tensor
    columns: list[Tensor]
    lengths: list[int]
    keys: Tensor
    decoded: list[Tensor] = field(default_factory=list)

    def new_tokens(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`decode_hidden`, shaped as the case's `decode_embeds`; empty without new tokens."""
        if not self.decoded:
            return {}
        return {"decode_hidden": torch.stack(self.decoded).view_as(inputs["decode_embeds"])}


@torch.no_grad()
def run(model: Any, call: dict, method: Method, n: int) -> Ran:
    """Prefill with the first `n` tokens of the call, decode the others one by one."""
    inner, call = model.model, dict(call)
    ids = call.pop("input_ids")
    with foveate.attach(model, method), watched(model.get_decoder()) as columns:
        out = inner(input_ids=ids[:, :n], use_cache=True, **call)
        cache = out.past_key_values
        lengths = [layer.keys.shape[2] for layer in cache.layers]
        keys = cache.layers[-1].keys.clone()
        ran = Ran(out.last_hidden_state, list(columns), lengths, keys)
        for column in range(n, ids.shape[1]):
            out = inner(
                input_ids=ids[:, column : column + 1], past_key_values=cache, use_cache=True
            )
            ran.decoded.append(out.last_hidden_state)
    return ran


@contextmanager
def watched(decoder: nn.Module) -> Iterator[list[Tensor]]:
    """Position ids of the tokens that each layer processes while open, in order."""
    columns: list[Tensor] = []

    def watch(_: nn.Module, args: tuple, kwargs: dict) -> None:
        columns.append(kwargs["position_ids"])

    with ExitStack() as stack:
        for layer in decoder.layers:
            hook = layer.register_forward_pre_hook(watch, with_kwargs=True)
            stack.callback(hook.remove)
        yield columns


def prompted(inputs: Mapping[str, Tensor], start: Any, length: Any) -> tuple[Tensor, Tensor, int]:
    """Embeddings (B, N, D) of prompt and decoded tokens, which are visual (B, N), prompt length.

    Args:
        inputs: `inputs_embeds` (B, n, D) and for decoded tokens `decode_embeds` (S, 1, D) or
            (S, B, 1, D).
        start: first visual token, one number or one per prompt.
        length: number of visual tokens, one number or one per prompt.
    """
    prompt = inputs["inputs_embeds"]
    b, n, width = prompt.shape
    rows = [prompt]
    if "decode_embeds" in inputs:
        rows.append(inputs["decode_embeds"].reshape(-1, b, width).transpose(0, 1))
    rows = torch.cat(rows, 1)
    steps = torch.arange(rows.shape[1])
    start, length = (torch.as_tensor(x).reshape(-1, 1).expand(b, 1) for x in (start, length))
    return rows, (steps >= start) & (steps < start + length), n


def decoder(
    params: Mapping[str, Any], kind: type = hf.LlamaConfig, width: int | None = None
) -> hf.PretrainedConfig:
    """The decoder configuration of a case; `width` is used if the case has no hidden size."""
    heads = params["num_heads"]
    width = params["hidden"] if width is None else width
    return kind(
        hidden_size=width,
        intermediate_size=params.get("intermediate", 8),
        num_hidden_layers=params.get("num_layers", 1),
        num_attention_heads=heads,
        num_key_value_heads=params.get("num_kv_heads", heads),
        head_dim=params.get("head_dim", width // heads),
        rms_norm_eps=params["rms_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": float(params["rope_theta"])},
        vocab_size=4,
        attn_implementation="sdpa",
    )
