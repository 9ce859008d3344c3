"""LLaVA-OneVision: tiled images, downscaled when large; video frames at half resolution."""

from __future__ import annotations

from foveate.families.base import raster
from foveate.families.clip import ClipFamily
from foveate.families.grids import shrunk
from foveate.families.specials import newline_behind
from foveate.families.tiles import tiled
from foveate.tokens import Layout


class LlavaOnevision(ClipFamily):
    name = "llava_onevision"
    towers = {"image": "vision_tower", "video": "vision_tower"}

    def layouts(self, config, modality, inputs, output) -> list[tuple[Layout, int]]:
        side = self.side(config)
        if modality == "video":
            videos, frames = inputs["pixel_values_videos"].shape[:2]
            half = (side + 1) // 2
            layout = newline_behind(shrunk(frames, side, side, half, half))
            return [(layout, i * frames * side * side) for i in range(videos)]
        ratio = inputs.get("vision_aspect_ratio") or config.vision_aspect_ratio
        most = int(ratio.removeprefix("anyres_max_"))
        items, first = [], 0
        sizes = inputs["image_sizes"].tolist()
        for size, alone in zip(sizes, _alone(inputs, len(sizes)), strict=True):
            layout, views = newline_behind(raster(1, side, side)), 1
            if alone:
                layout, views = tiled(config, size, most)
            items.append((layout, first))
            first += views * side * side
        return items


def _alone(inputs, images: int) -> list[bool]:
    """For each image, whether it is the only one of its sample; others are not tiled."""
    counts = inputs.get("batch_num_images")
    if counts is None:
        return [True] * images
    return [n == 1 for n in counts.tolist() for _ in range(n)]
