"""Qwen2.5-VL: as Qwen2-VL, with windowed attention; the encoder runs in window order."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.vision_utils import get_vision_window_index

from foveate.families.qwen2_vl import Qwen2VL


class Qwen25VL(Qwen2VL):
    name = "qwen2_5_vl"

    def tower_order(self, config, modality, inputs) -> Tensor:
        vision = config.vision_config
        unit = vision.spatial_merge_size**2
        window_index, _ = get_vision_window_index(
            inputs[f"{modality}_grid_thw"],
            vision.spatial_merge_size,
            vision.window_size,
            vision.patch_size,
        )
        token = torch.argsort(window_index)
        return (token[:, None] * unit + torch.arange(unit, device=token.device)).flatten()
