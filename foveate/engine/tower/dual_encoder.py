"""The vision encoder of a CLIP or SigLIP model, in the form that `Merger` expects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class DualEncoder:
    """The attributes and methods of `Anatomy` that `Merger` uses, for a CLIP or SigLIP model."""

    model: Any
    name: str
    class_token: bool
    merges: bool = True
    distill_token: bool = False

    @property
    def family(self) -> DualEncoder:
        """The object itself: it has the family's attributes too."""
        return self

    def tower(self, modality: str) -> nn.Module:
        """The vision encoder."""
        return self.model.vision_model

    def blocks(self, modality: str) -> nn.ModuleList:
        """The blocks of the vision encoder."""
        return self.model.vision_model.encoder.layers

    def vision_block(self, modality: str, layer: int | None) -> tuple[int, nn.Module]:
        """Index and module of a block; None for the last one, whose output is pooled."""
        blocks = self.blocks(modality)
        i = len(blocks) - 1 if layer is None else layer % len(blocks)
        return i, blocks[i]
