"""FastVLM: a convolutional encoder without attention; few tokens in raster order."""

from __future__ import annotations

from foveate.families.base import Family, raster
from foveate.families.pictures import resize_stacked
from foveate.tokens import Layout


class FastVlm(Family):
    name = "fast_vlm"
    attention = None
    tokenwise = True

    def stride(self, config) -> int:
        """Pixels along one side of a token: a stem of stride 4, then stages of stride 2."""
        stages = getattr(config.vision_config, "hidden_sizes", range(5))
        return 4 * 2 ** (len(stages) - 1)

    def layouts(self, config, modality, inputs, output) -> list[tuple[Layout, int]]:
        n, _, *size = inputs["pixel_values"].shape
        h, w = (-(-pixels // self.stride(config)) for pixels in size)
        return [(raster(1, h, w), i * h * w) for i in range(n)]

    def shrink(self, config, modality, inputs, shapes):
        return resize_stacked(inputs, "pixel_values", shapes, self.stride(config))
