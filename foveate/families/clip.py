"""Base of the LLaVA families: a CLIP or SigLIP encoder and an MLP projector."""

from __future__ import annotations

from foveate.errors import UnsupportedModel
from foveate.families.base import Family
from foveate.families.pictures import resize_stacked

TOWERS = {"clip_vision_model": True, "siglip_vision_model": False}


class ClipFamily(Family):
    """A CLIP encoder has a class token, a SigLIP encoder has none."""

    tokenwise = True
    merges = True

    def __init__(self, config):
        kind = config.vision_config.model_type
        if kind not in TOWERS:
            raise UnsupportedModel(
                f"{config.model_type} with a vision encoder of type {kind!r} is not supported; "
                f"use a model with one of {', '.join(TOWERS)}."
            )
        self.class_token = TOWERS[kind]

    def side(self, config) -> int:
        """Patches along one side of a view."""
        return config.vision_config.image_size // config.vision_config.patch_size

    def resize(self, config, modality, inputs, shapes):
        """The call with resized images and interpolated position embeddings."""
        patch = config.vision_config.patch_size
        name = self.pixels[modality]
        smaller = resize_stacked(inputs, name, shapes, patch)
        if smaller[name] is inputs[name]:
            return smaller
        return {**smaller, "interpolate_pos_encoding": True}
