"""Gemma 3: a SigLIP encoder whose patches are averaged k x k to a fixed number of tokens."""

from __future__ import annotations

from foveate.families.base import Family
from foveate.families.grids import pooled
from foveate.tokens import Layout


class Gemma3(Family):
    name = "gemma3"

    def layouts(self, config, modality, inputs, output) -> list[tuple[Layout, int]]:
        patches = config.vision_config.image_size // config.vision_config.patch_size
        side = int(config.mm_tokens_per_image**0.5)
        layout = pooled(1, side, side, patches // side)
        return [(layout, i * patches**2) for i in range(len(inputs["pixel_values"]))]
