"""CLIP and SigLIP models by themselves: the vision tower of two encoders that meet in one space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from foveate.errors import UnsupportedModel
from foveate.families.clip import TOWERS


@dataclass(frozen=True)
class DualEncoder:
    """What `Merger` asks of an anatomy, for a model without a decoder."""

    model: Any
    name: str
    class_token: bool
    merges: bool = True
    distill_token: bool = False

    @property
    def family(self) -> DualEncoder:
        """Its own facts: there is one kind of tower only."""
        return self

    def tower(self, modality: str) -> nn.Module:
        """The vision tower."""
        return self.model.vision_model

    def blocks(self, modality: str) -> nn.ModuleList:
        """The blocks of the vision tower."""
        return self.model.vision_model.encoder.layers

    def vision_block(self, modality: str, layer: int | None) -> tuple[int, nn.Module]:
        """Index and module of a block; None is the last, whose output is pooled."""
        blocks = self.blocks(modality)
        i = len(blocks) - 1 if layer is None else layer % len(blocks)
        return i, blocks[i]


def dual_encoder(model: nn.Module) -> DualEncoder:
    """The tower of a CLIP or SigLIP model; `UnsupportedModel` for any other."""
    vision = getattr(getattr(model, "config", None), "vision_config", None)
    kind = getattr(vision, "model_type", None)
    if kind not in TOWERS or not hasattr(model, "get_text_features"):
        raise UnsupportedModel(
            f"{type(model).__name__} has no image and text towers of CLIP or SigLIP; pass a "
            "CLIPModel or a SiglipModel."
        )
    return DualEncoder(model, model.config.model_type, TOWERS[kind])
