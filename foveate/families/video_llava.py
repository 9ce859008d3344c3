"""Video-LLaVA: one CLIP encoder for images, one for videos, whose frames keep class tokens."""

from __future__ import annotations

from foveate.families.base import raster
from foveate.families.llava import Llava
from foveate.families.specials import class_before
from foveate.tokens import Layout


class VideoLlava(Llava):
    name = "video_llava"
    towers = {"image": "image_tower", "video": "video_tower"}
    projects_class = True

    def layouts(self, config, modality, inputs, output) -> list[tuple[Layout, int]]:
        if modality == "image":
            return super().layouts(config, modality, inputs, output)
        patch = config.vision_config.patch_size
        videos, frames, _, *size = inputs["pixel_values_videos"].shape
        h, w = (pixels // patch for pixels in size)
        layout = class_before(raster(frames, h, w), h * w)
        return [(layout, i * frames * h * w) for i in range(videos)]
