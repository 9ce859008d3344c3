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

HEAD = 32  # width of an attention head, of the tower and of the Llama


def nano_config() -> LlavaConfig:
    """64 px in patches of 8 (64 visual tokens), a CLIP tower of four blocks, a Llama of six."""
    return _config(size=64, blocks=4, layers=6)


def image_config() -> LlavaConfig:
    """112 px in patches of 8 (196 visual tokens), a CLIP tower of five blocks, a Llama of eight."""
    return _config(size=112, blocks=5, layers=8)


def large_image_config() -> LlavaConfig:
    """192 px in patches of 8 (576 visual tokens), a CLIP tower of six blocks, a Llama of ten.

    As wide and deep as 16 MB of bfloat16 weights allow.
    """
    return _config(size=192, blocks=6, layers=10, seen=(192, 704), spoken=(224, 448), spread=0.067)


def _config(
    size: int,
    blocks: int,
    layers: int,
    seen: tuple[int, int] = (128, 512),
    spoken: tuple[int, int] = (160, 288),
    spread: float = 0.08,
) -> LlavaConfig:
    """``seen`` and ``spoken`` are widths of the tower and of the Llama: of the stream, of the MLPs.

    ``spread`` is the Llama's initial standard deviation. It is about 1 over the root of the width:
    an embedding then has norm 1, so tied logits and word alignment start well scaled.
    """
    special = {
        "pad_token_id": ids()["<pad>"],
        "bos_token_id": ids()["<bos>"],
        "eos_token_id": ids()["<eos>"],
    }
    vision = CLIPVisionConfig(
        hidden_size=seen[0],
        intermediate_size=seen[1],
        num_hidden_layers=blocks,
        num_attention_heads=seen[0] // HEAD,
        image_size=size,
        patch_size=8,
        projection_dim=seen[0],
    )
    text = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=spoken[0],
        intermediate_size=spoken[1],
        num_hidden_layers=layers,
        num_attention_heads=spoken[0] // HEAD,
        num_key_value_heads=spoken[0] // HEAD,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        initializer_range=spread,
        tie_word_embeddings=True,
        **special,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=ids()["<image>"],
        image_seq_length=(size // 8) ** 2,
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
    look_at_neighbours(model.model.vision_tower)
    look_for_likeness(model.model.language_model)
    return _greedy(model)


def _greedy(model: LlavaForConditionalGeneration) -> LlavaForConditionalGeneration:
    config = model.config
    special = {k: getattr(config, k) for k in ("pad_token_id", "bos_token_id", "eos_token_id")}
    model.generation_config = GenerationConfig(max_new_tokens=16, do_sample=False, **special)
    return model


@torch.no_grad()
def look_for_likeness(language_model) -> None:
    """Start a Llama with heads that look at what is like the asking token, and copy it.

    Keys equal to queries make a head attend by likeness, outputs equal to transposed values make it
    copy what it found (after "mimetic initialization", Trockman and Kolter 2023). A word then looks
    at the patches that carry it from the first step on; from a random start the same number of
    steps left "where is the red ring?" half as often right.
    """
    for layer in language_model.layers:
        attention = layer.self_attn
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        # Small, so that the words of the residual stream stay readable.
        attention.o_proj.weight.copy_(0.1 * attention.v_proj.weight.T)
        layer.mlp.down_proj.weight.mul_(0.1)


def _turns(count: int) -> torch.Tensor:
    """Frequencies that make codes of different places orthogonal on grids of up to 2 * count.

    On grids of up to 4 * count, places 2 * count apart get opposite codes: still told apart.
    """
    return torch.pi * (torch.arange(count) + 0.5) / count


def place_codes(tower) -> torch.Tensor:
    """Cosines and sines of the row and the column of every patch, (P, width of a head)."""
    embeddings = tower.embeddings
    grid = embeddings.image_size // embeddings.patch_size
    size = tower.config.hidden_size // tower.config.num_attention_heads
    angles = torch.arange(grid).float()[:, None] * _turns(size // 4)
    axis = torch.cat([angles.cos(), angles.sin()], 1)
    return 0.5 * torch.cat([axis.repeat(grid, 1), axis.repeat_interleave(grid, 0)], 1)


_SIDES = ((0, -1), (0, 1), (-1, 0), (1, 0))
_CORNERS = ((-1, -1), (1, -1), (-1, 1), (1, 1))


@torch.no_grad()
def look_at_neighbours(tower, blocks=(_SIDES, _SIDES, _CORNERS)) -> None:
    """Start a CLIP tower with heads that look at the neighbouring patches.

    ``blocks`` gives, for the first blocks, one offset (right, down) per head. Positions are written
    as cosines and sines in the first channels; a head's query is the code of its own place turned
    by the offset, its key the code as it is, so that their product peaks at that neighbour. Only
    the start is set, every weight stays free. From a random start, putting patches together to
    shapes and letters took the tower longer than all the rest of its training.
    """
    embeddings = tower.embeddings
    size = tower.config.hidden_size // tower.config.num_attention_heads
    count = size // 4
    turns = _turns(count)
    embeddings.position_embedding.weight[1:, :size] = place_codes(tower)
    embeddings.patch_embedding.weight[:size] = 0
    for layer, offsets in zip(tower.encoder.layers, blocks, strict=False):
        attention = layer.self_attn
        for head, offset in enumerate(offsets):
            turn = torch.zeros(size, size)
            for axis_number, step in enumerate(offset):
                start = 2 * count * axis_number
                c = torch.arange(start, start + count)
                turn[c, c] = turn[c + count, c + count] = torch.cos(turns * step)
                turn[c + count, c] = torch.sin(turns * step)
                turn[c, c + count] = -torch.sin(turns * step)
            rows = slice(head * size, (head + 1) * size)
            attention.q_proj.weight[rows, :size] = turn
            attention.k_proj.weight[rows, :size] = torch.eye(size)


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
