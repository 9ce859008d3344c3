"""The mini models as stock transformers classes: configurations, processors, empty models."""

import torch
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from .text import CHAT_TEMPLATE, build_tokenizer
from .world.vocabulary import VOCABULARY_SIZE, ids


def nano_config() -> LlavaConfig:
    """64 px in patches of 8 (64 visual tokens), a CLIP tower of four layers, a Llama of six."""
    special = {
        "pad_token_id": ids()["<pad>"],
        "bos_token_id": ids()["<bos>"],
        "eos_token_id": ids()["<eos>"],
    }
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=64,
        patch_size=8,
        projection_dim=128,
    )
    text = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=160,
        intermediate_size=288,
        num_hidden_layers=6,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        # With 0.08 an embedding has norm 1, so tied logits and word alignment start well scaled.
        initializer_range=0.08,
        tie_word_embeddings=True,
        **special,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=ids()["<image>"],
        image_seq_length=64,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        **special,
    )


def new_model(config: LlavaConfig, seed: int) -> LlavaForConditionalGeneration:
    """A model with fresh float32 weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    special = {k: getattr(config, k) for k in ("pad_token_id", "bos_token_id", "eos_token_id")}
    model.generation_config = GenerationConfig(max_new_tokens=16, do_sample=False, **special)
    return model


def new_processor(config: LlavaConfig) -> LlavaProcessor:
    """Tokenizer, chat template and a PIL image processor that squeezes pictures to the canvas."""
    side = {"height": config.vision_config.image_size, "width": config.vision_config.image_size}
    images = CLIPImageProcessorPil(
        size=side,
        crop_size=side,
        # Cropping would cut objects off wide pictures.
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=build_tokenizer(),
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )
