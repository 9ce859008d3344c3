"""LLaVA-NeXT-Video: images as in LLaVA-NeXT; video frames are pooled before the projector."""

from __future__ import annotations

from foveate.families.grids import pooled
from foveate.families.llava_next import LlavaNext
from foveate.tokens import Layout


class LlavaNextVideo(LlavaNext):
    name = "llava_next_video"
    towers = {"image": "vision_tower", "video": "vision_tower"}

    def layouts(self, config, modality, inputs, output) -> list[tuple[Layout, int]]:
        if modality == "image":
            return super().layouts(config, modality, inputs, output)
        videos, frames = inputs["pixel_values_videos"].shape[:2]
        side, k = self.side(config), config.spatial_pool_stride
        layout = pooled(frames, side // k, side // k, k)
        return [(layout, i * frames * side * side) for i in range(videos)]
