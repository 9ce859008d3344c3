"""LLaVA-NeXT: a base view and up to a few crops, stitched, unpadded, with newlines between rows."""

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
