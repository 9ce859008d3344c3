"""A LLaVA whose text and pictures are given vectors, so that a case runs on the real engine."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn


class Given(nn.Module):
    """Stands in for a projector: gives back what it was made with."""

    def __init__(self, features: Tensor):
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        return self.features[None]


def llava(text: hf.LlamaConfig, rows: Tensor, visual: Tensor, side: int) -> tuple[Any, dict]:
    """A model and its arguments for which the prompt's embeddings are `rows` (N, D).

    visual (N,) bool: rows of the one picture of side x side patches. Later rows are text: their
    ids follow those of the prompt's.
    """
    tower = hf.CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=2 * side,
        patch_size=2,
    )
    words = int((~visual).sum())
    text.vocab_size = words + 1
    config = hf.LlavaConfig(
        vision_config=tower,
        text_config=text,
        image_token_id=words,
        vision_feature_layer=-1,
    )
    model = hf.LlavaForConditionalGeneration(config).eval()
    model.model.multi_modal_projector = Given(rows[visual])
    ids = torch.full((1, len(rows)), words)
    ids[0, ~visual] = torch.arange(words)
    with torch.no_grad():
        model.get_input_embeddings().weight[:words] = rows[~visual]
    return model, {"input_ids": ids, "pixel_values": torch.zeros(1, 3, 2 * side, 2 * side)}
