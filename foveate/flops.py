"""FLOPs and KV cache bytes of a call, computed from the model's config.

Conventions of all functions:

- **A multiply-add counts as 2 FLOPs**, as in `torch.utils.flop_counter`. Papers on token reduction
  count `4nd² + 2n²d + 3ndm` per layer, with 1 per multiply-add. Their numbers are half of these;
  ratios are the same.
- **Only matrix products count.** Norms, activations, softmax, RoPE and embedding lookups do not.
- **One sequence.** The cost of a batch is the sum over its rows.
- **Prefill attention is the full n x n square** unless `causal=True`. Papers, eager attention and
  masked SDPA count it so. Kernels that skip the masked half do about `causal=True`.
- `lengths` is one int for all layers, or one int per layer, so that a schedule that drops tokens
  inside the LLM is counted as it runs.

No model and no torch is loaded. Nothing is guessed: a decoder with an unknown layer type raises
`UnsupportedModel`, and a vision encoder that is not a known ViT gives None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foveate.errors import InvalidParameter, UnsupportedModel

# Configs do not say whether the MLP has a gate.
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
    """The sizes of an LLM that determine its cost.

    Attributes:
        layers: Number of layers.
        hidden: Width.
        heads: Number of query heads.
        kv_heads: Number of key heads.
        head_dim: Width of a head. heads * head_dim need not be `hidden`.
        intermediate: Width of the MLP.
        gated: Whether the MLP has a third, gating matrix.
        vocab: Size of the vocabulary.
        windows: For each layer, the length of its sliding window, with the query itself; None for
            full attention.
        experts: For each layer, the summed width of the MLPs that a token runs through, and the
            number of router outputs. None without mixture of experts.
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
        """The shape of the text model in `config`, the config of a VLM or of an LLM.

        Raises `UnsupportedModel` for unknown layer types, such as state space layers or an unknown
        mixture of experts. Build a `DecoderShape` by hand for those.
        """
        if not hasattr(config, "get_text_config"):
            raise UnsupportedModel(
                f"{type(config).__name__} is not a transformers config; pass model.config."
            )
        text = config.get_text_config()
        if text.model_type not in _GATED_DECODERS | _UNGATED_DECODERS:
            raise UnsupportedModel(
                f"The FLOPs of text models of type {text.model_type!r} are not known; build a "
                "DecoderShape by hand from its sizes."
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
    """The sizes of a ViT that determine its cost.

    Attributes:
        layers: Number of layers.
        hidden: Width.
        intermediate: Width of the MLP.
        gated: Whether the MLP has a third, gating matrix.
        patch_values: Pixel values per patch: channels * frames * height * width.
        windows: For each layer, the tokens of a full attention window; None for attention over the
            whole image.
    """

    layers: int
    hidden: int
    intermediate: int
    gated: bool
    patch_values: int
    windows: tuple[int | None, ...]

    @classmethod
    def from_config(cls, config: Any) -> VisionShape | None:
        """The shape of the vision encoder in `config`, the config of a VLM or of an encoder.

        None for encoders that are not a known ViT, such as convolutional ones (FastVLM, ResNet,
        timm).
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
    """FLOPs of prefill.

    Args:
        shape: The LLM.
        lengths: Tokens (text and visual) in each layer.
        causal: Count only the query-key pairs under the causal mask, n (n + 1) / 2 without a
            window.
        lm_head: Add the logits of the last token, which `generate` computes and papers leave out.
    """
    lengths = _per_layer(lengths, shape.layers)
    total = 0
    for i, (n, window) in enumerate(zip(lengths, shape.windows, strict=True)):
        total += n * _decoder_token_flops(shape, i)
        total += _pair_flops(shape.heads * shape.head_dim) * _pairs(n, window, causal)
    return total + (_linear(shape.hidden, shape.vocab) if lm_head else 0)


def decode_flops(shape: DecoderShape, lengths: int | Sequence[int], *, lm_head: bool = True) -> int:
    """FLOPs of one decode step.

    Args:
        shape: The LLM.
        lengths: Cached tokens in each layer. The new token also attends to itself.
        lm_head: Add the logits of the new token.
    """
    lengths = _per_layer(lengths, shape.layers)
    total = 0
    for i, (n, window) in enumerate(zip(lengths, shape.windows, strict=True)):
        seen = n + 1 if window is None else min(n + 1, window)
        total += _decoder_token_flops(shape, i) + _pair_flops(shape.heads * shape.head_dim) * seen
    return total + (_linear(shape.hidden, shape.vocab) if lm_head else 0)


def kv_bytes(shape: DecoderShape, lengths: int | Sequence[int], dtype_bytes: float = 2) -> int:
    """Size of the KV cache in bytes.

    A layer with a sliding window w keeps at most the last w - 1 tokens, as the caches of
    transformers do, because the next token fills the window.

    Args:
        shape: The LLM.
        lengths: Tokens in each layer.
        dtype_bytes: Bytes of one number, 0.5 for 4 bits.
    """
    if dtype_bytes <= 0:
        raise InvalidParameter(
            f"dtype_bytes={dtype_bytes!r} is not valid; use a number above 0, 2 for float16."
        )
    held = sum(
        n if window is None else min(n, window - 1)
        for n, window in zip(_per_layer(lengths, shape.layers), shape.windows, strict=True)
    )
    return math.ceil(2 * held * shape.kv_heads * shape.head_dim * dtype_bytes)


def vision_flops(
    shape: VisionShape, tokens_per_layer: int | Sequence[int], *, patches: int = 0
) -> int:
    """FLOPs of the vision encoder for one image, crop or frame.

    Images of a batch, crops and frames (or frame pairs) do not attend to each other: sum over them.
    In windowed layers every token counts as in a full window, which is an upper bound. Poolers and
    projectors are not counted.

    Args:
        shape: The vision encoder.
        tokens_per_layer: Tokens in each layer, with a class token.
        patches: Number of patches whose embedding is added.
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
    """FLOPs of a matrix for one token."""
    return 2 * inputs * outputs


def _pair_flops(width: int) -> int:
    """FLOPs of one query-key pair over all heads: the score and the weighted value."""
    return 2 * width + 2 * width


def _decoder_token_flops(shape: DecoderShape, layer: int) -> int:
    """FLOPs of one token in one layer without attention pairs; active experts only."""
    queries = shape.heads * shape.head_dim
    keys = shape.kv_heads * shape.head_dim
    projections = 2 * _linear(shape.hidden, queries) + 2 * _linear(shape.hidden, keys)
    wide, choosing = (shape.intermediate, 0) if shape.experts is None else shape.experts[layer]
    mlp = (3 if shape.gated else 2) * _linear(shape.hidden, wide)
    return projections + mlp + _linear(shape.hidden, choosing)


def _pairs(n: int, window: int | None, causal: bool) -> int:
    """Number of query-key pairs of n tokens."""
    reach = n if window is None else min(n, window)
    if not causal:
        return n * reach
    # The first `reach` queries attend to 1, 2, ..., reach keys, each later one to a full window.
    return reach * (reach + 1) // 2 + (n - reach) * reach


def _per_layer(lengths: int | Sequence[int], layers: int) -> list[int]:
    values = [lengths] * layers if isinstance(lengths, int) else [int(n) for n in lengths]
    if len(values) != layers:
        raise InvalidParameter(
            f"lengths has {len(values)} values for {layers} layers; pass one int, or one per layer."
        )
    if min(values) < 0:
        raise InvalidParameter(f"lengths has the value {min(values)}; use 0 or more tokens.")
    return values


def _experts(text: Any) -> tuple[tuple[int, int], ...] | None:
    """For each layer, the width of the MLPs that a token runs through, and the router outputs."""
    active = getattr(text, "num_experts_per_tok", None)
    if not active:
        return None
    width = getattr(text, "moe_intermediate_size", None) or text.intermediate_size
    shared = getattr(text, "shared_expert_intermediate_size", None) or 0
    # The weight of a shared expert comes from a matrix with one output.
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
            f"The FLOPs of layers of type {', '.join(sorted(unknown))} are not known; build a "
            "DecoderShape by hand from their sizes."
        )
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _tower_layers(vision: Any) -> int:
    return vision.depth if hasattr(vision, "depth") else vision.num_hidden_layers


def _tower_intermediate(kind: str, vision: Any) -> int:
    if kind == "qwen2_vl_vision":
        return int(vision.embed_dim * vision.mlp_ratio)
    # `intermediate_size` of GLM-4V is that of its merger. The MLPs of its blocks have output width.
    return vision.out_hidden_size if kind == "glm4v_vision" else vision.intermediate_size


def _tower_windows(kind: str, vision: Any) -> tuple[int | None, ...]:
    if kind != "qwen2_5_vl_vision":
        return (None,) * _tower_layers(vision)
    height, width = _pair(vision.patch_size)
    # A window contains whole merge groups: the encoder rounds its side down to them.
    merge = vision.spatial_merge_size
    side = [vision.window_size // merge // patch * merge for patch in (height, width)]
    full = set(vision.fullatt_block_indexes)
    return tuple(None if i in full else side[0] * side[1] for i in range(vision.depth))


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
