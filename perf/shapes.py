"""Models of real sizes with random weights: speed does not depend on the values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2Config,
    Qwen2Model,
)

IMAGE = 1


@dataclass(frozen=True)
class Shape:
    """A LLaVA-type model and its prompt.

    Attributes:
        name: for pages.
        text: configuration of the LLM.
        tower_layers: blocks of the CLIP-L vision encoder.
        visual: visual tokens per image.
        words: text tokens per prompt.
        tower_mlp: MLP width of the vision encoder.
    """

    name: str
    text: Qwen2Config | LlamaConfig
    tower_layers: int
    visual: int = 576
    words: int = 32
    tower_mlp: int = 4096

    def decoder(self) -> Qwen2Model:
        """The LLM alone, with random weights, in float32 on the CPU."""
        return Qwen2Model(self.text).eval()

    def build(self, dtype: torch.dtype, device: str) -> LlavaForConditionalGeneration:
        """The model with random weights, in eval mode."""
        side = 14 * int(self.visual**0.5)
        vision = CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=self.tower_mlp,
            num_hidden_layers=self.tower_layers,
            num_attention_heads=16,
            image_size=side,
            patch_size=14,
        )
        config = LlavaConfig(vision_config=vision, text_config=self.text, image_token_id=IMAGE)
        torch.manual_seed(0)
        with torch.device(device):
            model = LlavaForConditionalGeneration(config).to(dtype).eval()
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        return model

    def inputs(
        self, model: LlavaForConditionalGeneration, pictures: int = 1, batch: int = 1
    ) -> dict[str, Tensor]:
        """A batch of prompts, each with `pictures` images between two halves of text."""
        generator = torch.Generator().manual_seed(1)
        side = model.config.vision_config.image_size
        text = torch.randint(2, 1000, (batch, self.words), generator=generator)
        half = self.words // 2
        seen = torch.full((batch, self.visual * pictures), IMAGE)
        ids = torch.cat([text[:, :half], seen, text[:, half:]], 1)
        pixels = torch.randn(batch * pictures, 3, side, side, generator=generator)
        return {
            "input_ids": ids.to(model.device),
            "attention_mask": torch.ones_like(ids).to(model.device),
            "pixel_values": pixels.to(model.device, model.dtype),
        }


QWEN2_05B = Shape(
    "Qwen2-0.5B decoder (24 x 896, GQA 14/2)",
    Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=151936,
        tie_word_embeddings=True,
    ),
    tower_layers=4,
)
LLAVA_7B = Shape(
    "LLaVA-1.5-7B (32 x 4096)",
    LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        vocab_size=32064,
    ),
    tower_layers=24,
)
