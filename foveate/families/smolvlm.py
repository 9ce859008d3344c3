"""SmolVLM: crops and tokens as in Idefics3."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from foveate.families.idefics3 import Idefics3


class SmolVLM(Idefics3):
    name = "smolvlm"

    def replaced(self, inner: Any) -> dict[str, Any]:
        # Before transformers 5.21 it needs the same number of features for each image, which
        # reduced images do not have.
        if not hasattr(inner, "inputs_merger"):
            return {}
        return {"inputs_merger": partial(_placed, inner.config.image_token_id)}


def _placed(
    placeholder: int, input_ids: Tensor, inputs_embeds: Tensor, image_hidden_states: Tensor
) -> Tensor:
    """Embeddings (B, L, D) with the features of all images at the placeholders, in order."""
    features = image_hidden_states.to(inputs_embeds.device, inputs_embeds.dtype)
    return inputs_embeds.masked_scatter((input_ids == placeholder)[..., None], features)
