"""The embedded models as stock transformers classes: configurations, processors, new models."""

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

HEAD = 32  # width of an attention head in the vision encoder and the Llama


def nano_config() -> LlavaConfig:
    """64 px, patches of 8 px (64 visual tokens), a CLIP with four blocks, a Llama with six."""
    return _config(size=64, blocks=4, layers=6)


def image_config() -> LlavaConfig:
    """112 px, patches of 8 px (196 visual tokens), a CLIP with five blocks, a Llama with eight."""
    return _config(size=112, blocks=5, layers=8)


def large_image_config() -> LlavaConfig:
    """192 px, patches of 8 px (576 visual tokens), a CLIP with six blocks, a Llama with ten.

    Sized to 16 MB of bfloat16 weights.
    """
    return _config(size=192, blocks=6, layers=10, vision=(192, 704), text=(224, 448), spread=0.067)


def _config(
    size: int,
    blocks: int,
    layers: int,
    vision: tuple[int, int] = (128, 512),
    text: tuple[int, int] = (160, 288),
    spread: float = 0.08,
) -> LlavaConfig:
    """A LLaVA configuration.

    Args:
        size: image side in pixels.
        blocks: blocks of the vision encoder.
        layers: layers of the Llama.
        vision: widths of the vision encoder, (hidden, MLP).
        text: widths of the Llama, (hidden, MLP).
        spread: initial standard deviation of the Llama, about 1 / sqrt(width). Embeddings then have
            norm 1, so tied logits and word alignment start well scaled.
    """
    special = {
        "pad_token_id": ids()["<pad>"],
        "bos_token_id": ids()["<bos>"],
        "eos_token_id": ids()["<eos>"],
    }
    vision_config = CLIPVisionConfig(
        hidden_size=vision[0],
        intermediate_size=vision[1],
        num_hidden_layers=blocks,
        num_attention_heads=vision[0] // HEAD,
        image_size=size,
        patch_size=8,
        projection_dim=vision[0],
    )
    text_config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=text[0],
        intermediate_size=text[1],
        num_hidden_layers=layers,
        num_attention_heads=text[0] // HEAD,
        num_key_value_heads=text[0] // HEAD,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        initializer_range=spread,
        tie_word_embeddings=True,
        **special,
    )
    return LlavaConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_index=ids()["<image>"],
        image_seq_length=(size // 8) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        **special,
    )


def new_model(config: LlavaConfig, seed: int) -> LlavaForConditionalGeneration:
    """A model with new float32 weights that depend only on the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    attend_to_neighbours(model.model.vision_tower)
    attend_to_similar(model.model.language_model)
    return _greedy(model)


def _greedy(model: LlavaForConditionalGeneration) -> LlavaForConditionalGeneration:
    config = model.config
    special = {k: getattr(config, k) for k in ("pad_token_id", "bos_token_id", "eos_token_id")}
    model.generation_config = GenerationConfig(max_new_tokens=16, do_sample=False, **special)
    return model


@torch.no_grad()
def attend_to_similar(language_model) -> None:
    """Initialise the attention of a Llama so that tokens attend to similar tokens and copy them.

    Keys equal to queries make a head attend by similarity. Outputs equal to transposed values make
    it copy (after "mimetic initialization", Trockman and Kolter 2023). A word then attends to the
    patches that show it from the first step. With random initialisation, half as many location
    questions were correct after the same number of steps.
    """
    for layer in language_model.layers:
        attention = layer.self_attn
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        # Small, so that the hidden states stay close to the word embeddings.
        attention.o_proj.weight.copy_(0.1 * attention.v_proj.weight.T)
        layer.mlp.down_proj.weight.mul_(0.1)


def _frequencies(count: int) -> torch.Tensor:
    """Frequencies that make the codes of different positions orthogonal on grids up to 2 * count.

    On grids up to 4 * count, positions 2 * count apart get opposite codes, which still differ.
    """
    return torch.pi * (torch.arange(count) + 0.5) / count


def position_codes(tower) -> torch.Tensor:
    """Position codes: cosines and sines of the row and column of every patch, (P, head width)."""
    embeddings = tower.embeddings
    grid = embeddings.image_size // embeddings.patch_size
    size = tower.config.hidden_size // tower.config.num_attention_heads
    angles = torch.arange(grid).float()[:, None] * _frequencies(size // 4)
    axis = torch.cat([angles.cos(), angles.sin()], 1)
    return 0.5 * torch.cat([axis.repeat(grid, 1), axis.repeat_interleave(grid, 0)], 1)


_SIDES = ((0, -1), (0, 1), (-1, 0), (1, 0))
_CORNERS = ((-1, -1), (1, -1), (-1, 1), (1, 1))


@torch.no_grad()
def attend_to_neighbours(tower, blocks=(_SIDES, _SIDES, _CORNERS)) -> None:
    """Initialise the first blocks of a CLIP with heads that attend to neighbouring patches.

    The first channels hold position codes. A head's query is the code of its own position rotated
    by an offset, its key is the plain code, so their product peaks at that neighbour. All weights
    stay trainable. With random initialisation, learning to combine patches into shapes and letters
    took longer than the rest of the training.

    Args:
        tower: the CLIP vision model, changed in place.
        blocks: for each of the first blocks, one offset (right, down) per head.
    """
    embeddings = tower.embeddings
    size = tower.config.hidden_size // tower.config.num_attention_heads
    count = size // 4
    turns = _frequencies(count)
    embeddings.position_embedding.weight[1:, :size] = position_codes(tower)
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
    """Tokenizer, chat template and a PIL image processor that resizes images to a square."""
    side = {"height": config.vision_config.image_size, "width": config.vision_config.image_size}
    images = CLIPImageProcessorPil(
        size=side,
        crop_size=side,
        # Cropping would remove objects from wide images.
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
