"""Idefics3: the crops of all images of a sample are one item; the overview follows its crops."""

from __future__ import annotations

from torch import Tensor

from foveate.families.base import Family
from foveate.families.grids import pooled
from foveate.tokens import Layout


def _crops(pixels: Tensor, features: Tensor | list[Tensor], tokens: int) -> list[int]:
    """Crops of every sample. The model removes padding crops, which are black, before encoding."""
    if not isinstance(features, Tensor):
        return [len(own) // tokens for own in features]
    # Some transformers versions return the crops of all samples in one tensor.
    real = (pixels != 0).flatten(2).any(-1)
    real[0, 0] |= ~real.any()
    return real.sum(1).tolist()


class Idefics3(Family):
    name = "idefics3"
    towers = {"image": "vision_model"}
    projector = "connector"

    def layouts(self, config, modality, inputs, output) -> list[tuple[Layout, int]]:
        k = config.scale_factor
        side = config.vision_config.patch_size * k
        h, w = (pixels // side for pixels in inputs["pixel_values"].shape[-2:])
        items, first = [], 0
        for crops in _crops(inputs["pixel_values"], output.pooler_output, h * w):
            if crops:
                items.append((pooled(crops, h, w, k), first))
            first += crops * h * w * k * k
        return items
