"""What a call costs, from the model's configuration alone: FLOPs and bytes of KV cache.

Conventions, the same in every function:

- **A multiply-add is 2 FLOPs**, as `torch.utils.flop_counter` counts. The token reduction papers
  count `4nd² + 2n²d + 3ndm` for a layer, which takes a multiply-add for 1: their figures are half
  of these, the ratios of two figures are the same.
- **Only matrix products count.** Norms, activations, softmax, RoPE and embedding look-ups are left
  out.
- **One sequence.** A batch costs the sum of its rows; padding is whatever the caller says it is.
- **Prefill attention is the full n x n square** unless `causal=True`. This is what the papers
  count, and what eager attention and masked SDPA compute; kernels that skip the masked half do
  about `causal=True`.
- `lengths` is one int for all layers, or a sequence with one int per layer, so a schedule that
  drops tokens on the way through the model is counted as it runs.

Nothing here loads a model or torch. What a configuration does not say is never guessed: decoders
that can't be counted raise `UnsupportedModel`, towers that are no plain ViT give None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foveate.errors import InvalidParameter, UnsupportedModel

# No configuration says whether the MLP has a gate, only the modelling code does.
_GATED_DECODERS = frozenset(
    {
        *("llama", "mistral", "ministral", "phi3", "smollm3", "cohere", "cohere2", "olmo2"),
        *("qwen2", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3", "qwen3_vl_text"),
        *("gemma", "gemma2", "gemma3_text", "glm", "glm4", "glm4v_text"),
        *("mixtral", "qwen2_moe", "qwen3_moe", "qwen3_vl_moe_text"),
    }
)
_UNGATED_DECODERS = frozenset({"gpt_neox", "phi", "starcoder2"})
_GATED_TOWERS = frozenset({"qwen2_5_vl_vision", "glm4v_vision", "pixtral"})
_UNGATED_TOWERS = frozenset(
    {
        *("clip_vision_model", "siglip_vision_model", "internvl_vision", "idefics3_vision"),
        *("smolvlm_vision", "qwen2_vl_vision", "qwen3_vl_vision", "video_llama_3_vision"),
    }
)


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a language model that its cost follows from.

    `heads` and `kv_heads` of width `head_dim` (heads * head_dim need not be `hidden`);
    `intermediate` is the width of the MLP, with a third matrix when `gated`; `windows` holds per
    layer how many tokens a query sees, itself included, or None where it sees all. `experts` holds
    per layer the width of all MLPs that one token runs through, and how many outputs the matrices
    have that choose and weigh them; None where every layer has one MLP.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    gated: bool
    vocab: int
    windows: tuple[int | None, ...]
    experts: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def from_config(cls, config: Any) -> DecoderShape:
        """The shape of the text side of `config`, the config of a VLM or of a language model.

        Raises `UnsupportedModel` for a text model whose layers this module can't count (state space
        layers, unknown mixtures of experts, anything unknown). For those build a `DecoderShape` by
        hand or do without the cost.
        """
        if not hasattr(config, "get_text_config"):
            raise UnsupportedModel(
                f"{type(config).__name__} is no transformers config: pass model.config."
            )
        text = config.get_text_config()
        if text.model_type not in _GATED_DECODERS | _UNGATED_DECODERS:
            raise UnsupportedModel(
                f"The FLOPs of a {text.model_type!r} text model are not known: "
                "build a DecoderShape by hand from its sizes."
            )
        heads = text.num_attention_heads
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            intermediate=text.intermediate_size,
            gated=text.model_type in _GATED_DECODERS,
            vocab=text.vocab_size,
            windows=_decoder_windows(text),
            experts=_experts(text),
        )


@dataclass(frozen=True)
class VisionShape:
    """The sizes of a plain ViT tower that its cost follows from.

    `patch_values` is how many pixel values make one patch (channels * frames * height * width).
    `windows` holds per layer how many tokens share a full attention window, or None where the whole
    image attends to itself.
    """

    layers: int
    hidden: int
    intermediate: int
    gated: bool
    patch_values: int
    windows: tuple[int | None, ...]

    @classmethod
    def from_config(cls, config: Any) -> VisionShape | None:
        """The shape of the vision tower of `config`, of a VLM or of a tower; None for no known ViT.

        Convolutional towers (FastVLM, ResNet, timm) are the usual None.
        """
        vision = getattr(config, "vision_config", None) or config
        kind = getattr(vision, "model_type", None)
        if kind not in _GATED_TOWERS | _UNGATED_TOWERS:
            return None
        height, width = _pair(vision.patch_size)
        channels = getattr(vision, "num_channels", None) or vision.in_channels
        frames = getattr(vision, "temporal_patch_size", 1)
        hidden = vision.embed_dim if kind == "qwen2_vl_vision" else vision.hidden_size
        return cls(
            layers=_tower_layers(vision),
            hidden=hidden,
            intermediate=_tower_intermediate(kind, vision),
            gated=kind in _GATED_TOWERS,
            patch_values=channels * frames * height * width,
            windows=_tower_windows(kind, vision),
        )


def prefill_flops(
    shape: DecoderShape,
    lengths: int | Sequence[int],
    *,
    causal: bool = False,
    lm_head: bool = True,
) -> int:
    """FLOPs of reading a prompt with `lengths` tokens (text and visual together) in each layer.

    `causal` counts only the pairs that the causal mask lets through, n(n+1)/2 without a window.
    `lm_head` adds the logits of the last token, which `generate` computes and the papers leave out.
    """
    lengths = _per_layer(lengths, shape.layers)
    total = 0
    for i, (n, window) in enumerate(zip(lengths, shape.windows, strict=True)):
        total += n * _decoder_token_flops(shape, i)
        total += _pair_flops(shape.heads * shape.head_dim) * _pairs(n, window, causal)
    return total + (_linear(shape.hidden, shape.vocab) if lm_head else 0)


def decode_flops(shape: DecoderShape, lengths: int | Sequence[int], *, lm_head: bool = True) -> int:
    """FLOPs of one new token over a cache that holds `lengths` tokens in each layer before it.

    The new token also attends to itself. `lm_head` adds its logits.
    """
    lengths = _per_layer(lengths, shape.layers)
    total = 0
    for i, (n, window) in enumerate(zip(lengths, shape.windows, strict=True)):
        seen = n + 1 if window is None else min(n + 1, window)
        total += _decoder_token_flops(shape, i) + _pair_flops(shape.heads * shape.head_dim) * seen
    return total + (_linear(shape.hidden, shape.vocab) if lm_head else 0)


def kv_bytes(shape: DecoderShape, lengths: int | Sequence[int], dtype_bytes: float = 2) -> int:
    """Bytes of keys and values after `lengths` tokens in each layer.

    `dtype_bytes` is the size of one number, 0.5 for 4 bits. A layer with a window of w keeps at
    most the last w - 1, as the caches of transformers do: the next token takes the last place in
    the window.
    """
    if dtype_bytes <= 0:
        raise InvalidParameter(f"dtype_bytes={dtype_bytes!r} must be above 0, 2 for float16.")
    held = sum(
        n if window is None else min(n, window - 1)
        for n, window in zip(_per_layer(lengths, shape.layers), shape.windows, strict=True)
    )
    return math.ceil(2 * held * shape.kv_heads * shape.head_dim * dtype_bytes)


def vision_flops(
    shape: VisionShape, tokens_per_layer: int | Sequence[int], *, patches: int = 0
) -> int:
    """FLOPs of the tower for one image, crop or frame.

    `tokens_per_layer` counts what runs through the blocks, a CLS token included. Images of a batch,
    crops of an image and frames (or frame pairs) of a video do not attend to each other: sum over
    them. `patches` adds the embedding of that many patches. In windowed layers every token is taken
    to sit in a full window, an upper bound where windows are cut at the border. Poolers, mergers
    and projectors are not counted.
    """
    total = _per_layer([patches], 1)[0] * _linear(shape.patch_values, shape.hidden)
    matrices = 3 if shape.gated else 2
    token = 4 * _linear(shape.hidden, shape.hidden)
    token += matrices * _linear(shape.hidden, shape.intermediate)
    lengths = _per_layer(tokens_per_layer, shape.layers)
    for n, window in zip(lengths, shape.windows, strict=True):
        total += n * token + _pair_flops(shape.hidden) * _pairs(n, window, causal=False)
    return total


def _linear(inputs: int, outputs: int) -> int:
    """FLOPs of a matrix applied to one token."""
    return 2 * inputs * outputs


def _pair_flops(width: int) -> int:
    """FLOPs of one query with one key over all heads: the score, then the weighted value."""
    return 2 * width + 2 * width


def _decoder_token_flops(shape: DecoderShape, layer: int) -> int:
    """FLOPs of one token in one layer apart from the attention pairs, of active experts only."""
    queries = shape.heads * shape.head_dim
    keys = shape.kv_heads * shape.head_dim
    projections = 2 * _linear(shape.hidden, queries) + 2 * _linear(shape.hidden, keys)
    wide, choosing = (shape.intermediate, 0) if shape.experts is None else shape.experts[layer]
    mlp = (3 if shape.gated else 2) * _linear(shape.hidden, wide)
    return projections + mlp + _linear(shape.hidden, choosing)


def _pairs(n: int, window: int | None, causal: bool) -> int:
    """How many (query, key) pairs n tokens make."""
    reach = n if window is None else min(n, window)
    if not causal:
        return n * reach
    # The first `reach` queries see 1, 2, ..., reach keys, each later one a full window.
    return reach * (reach + 1) // 2 + (n - reach) * reach


def _per_layer(lengths: int | Sequence[int], layers: int) -> list[int]:
    values = [lengths] * layers if isinstance(lengths, int) else [int(n) for n in lengths]
    if len(values) != layers:
        raise InvalidParameter(
            f"{len(values)} lengths were given for {layers} layers: give one int or one per layer."
        )
    if min(values) < 0:
        raise InvalidParameter(f"A length of {min(values)} tokens is below 0.")
    return values


def _experts(text: Any) -> tuple[tuple[int, int], ...] | None:
    """Per layer the width of the MLPs that a token runs through and the outputs of routers."""
    active = getattr(text, "num_experts_per_tok", None)
    if not active:
        return None
    width = getattr(text, "moe_intermediate_size", None) or text.intermediate_size
    shared = getattr(text, "shared_expert_intermediate_size", None) or 0
    # A shared expert is weighed by a matrix of one output.
    sparse = active * width + shared, text.num_experts + bool(shared)
    dense = set(getattr(text, "mlp_only_layers", None) or ())
    step = getattr(text, "decoder_sparse_step", 1)
    return tuple(
        (text.intermediate_size, 0) if i in dense or (i + 1) % step else sparse
        for i in range(text.num_hidden_layers)
    )


def _decoder_windows(text: Any) -> tuple[int | None, ...]:
    window = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None)
    if kinds is None:
        return (window,) * text.num_hidden_layers
    unknown = set(kinds) - {"full_attention", "sliding_attention"}
    if unknown:
        raise UnsupportedModel(
            f"The FLOPs of {', '.join(sorted(unknown))} layers are not known: "
            "build a DecoderShape by hand from their sizes."
        )
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _tower_layers(vision: Any) -> int:
    return vision.depth if hasattr(vision, "depth") else vision.num_hidden_layers


def _tower_intermediate(kind: str, vision: Any) -> int:
    if kind == "qwen2_vl_vision":
        return int(vision.embed_dim * vision.mlp_ratio)
    # GLM-4V's `intermediate_size` is the merger's: its blocks take the width of the output.
    return vision.out_hidden_size if kind == "glm4v_vision" else vision.intermediate_size


def _tower_windows(kind: str, vision: Any) -> tuple[int | None, ...]:
    if kind != "qwen2_5_vl_vision":
        return (None,) * _tower_layers(vision)
    height, width = _pair(vision.patch_size)
    # A window holds whole merge groups: the tower rounds its side down to them.
    merge = vision.spatial_merge_size
    side = [vision.window_size // merge // patch * merge for patch in (height, width)]
    full = set(vision.fullatt_block_indexes)
    return tuple(None if i in full else side[0] * side[1] for i in range(vision.depth))


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
