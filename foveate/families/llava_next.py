"""LLaVA-NeXT: an overview and crops, stitched and unpadded, with a newline after each row."""

from __future__ import annotations

from foveate.families.clip import ClipFamily
from foveate.families.tiles import tiled
from foveate.tokens import Layout


class LlavaNext(ClipFamily):
    name = "llava_next"

    def layouts(self, config, modality, inputs, output) -> list[tuple[Layout, int]]:
        items, first = [], 0
        for size in inputs["image_sizes"].tolist():
            layout, views = tiled(config, size)
            items.append((layout, first))
            first += views * self.side(config) ** 2
        return items
