"""Vision-language models with language models of many kinds, as LLaVA and InternVL take any."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import transformers as hf

from . import zoo

FULL, SLIDING = "full_attention", "sliding_attention"
# Prompts of the zoo are longer than the window.
WINDOW = {"sliding_window": 16, "layer_types": [SLIDING, SLIDING, FULL, SLIDING, FULL]}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 8,
    "max_position_embeddings": 64,
    "llama_4_scaling_beta": 0.1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
SHAPE = {**zoo.TEXT, "eos_token_id": None}
HEAD = {**SHAPE, "head_dim": 8}
TEXTS: dict[str, Callable[[], Any]] = {
    "cohere2": lambda: hf.Cohere2Config(**HEAD, **WINDOW),
    "exaone4": lambda: hf.Exaone4Config(**HEAD, **WINDOW),
    "gemma2": lambda: hf.Gemma2Config(
        **HEAD, **WINDOW, query_pre_attn_scalar=8, attn_logit_softcapping=2.0
    ),
    "gpt_oss": lambda: hf.GptOssConfig(
        **{**HEAD, "intermediate_size": 32}, **WINDOW, num_local_experts=4, num_experts_per_tok=2
    ),
    "granite": lambda: hf.GraniteConfig(
        **SHAPE, attention_multiplier=0.2, residual_multiplier=0.5, logits_scaling=2.0
    ),
    "ministral3": lambda: hf.Ministral3Config(**HEAD, sliding_window=None, rope_parameters=YARN),
    "mistral": lambda: hf.MistralConfig(**HEAD, sliding_window=16),
    "olmo2": lambda: hf.Olmo2Config(**SHAPE),
    "olmo3": lambda: hf.Olmo3Config(**SHAPE, **WINDOW),
    "phi3": lambda: hf.Phi3Config(**SHAPE, sliding_window=16),
    "qwen2_window": lambda: hf.Qwen2Config(**SHAPE, **WINDOW, use_sliding_window=True),
    "qwen3_moe": lambda: hf.Qwen3MoeConfig(**HEAD, num_experts=4, **EXPERTS),
    "no_positions": lambda: hf.SmolLM3Config(
        **SHAPE, no_rope_layers=[0] * 5, use_sliding_window=False
    ),
    "smollm3": lambda: hf.SmolLM3Config(
        **SHAPE, no_rope_layer_interval=2, use_sliding_window=False
    ),
}


@cache
def model(text: str, family: str = "llava"):
    """A tiny model of a family around a language model of the asked kind, with sdpa or eager."""
    torch.manual_seed(0)
    config = TEXTS[text]()
    if family == "llava":
        whole = hf.LlavaConfig(
            vision_config=zoo._clip(), text_config=config, image_token_id=zoo.IMAGE
        )
        built = hf.LlavaForConditionalGeneration(whole).eval()
    else:
        whole = hf.InternVLConfig(
            vision_config=dict(zoo.FINE_TOWER), text_config=config, image_token_id=zoo.IMAGE
        )
        built = hf.InternVLForConditionalGeneration(whole).eval()
    return zoo.redrawn(built, 1.0)
