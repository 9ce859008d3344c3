"""Qwen2.5-VL: as Qwen2-VL, but most tower blocks see windows, and all run in window order."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.vision_utils import get_vision_window_index

from foveate.families.qwen2_vl import Qwen2VL, grids


class Qwen25VL(Qwen2VL):
    name = "qwen2_5_vl"

    def tower_order(self, config, modality, inputs) -> Tensor:
        vision = config.vision_config
        merge = vision.spatial_merge_size
        window_index, _ = get_vision_window_index(
            grids(modality, inputs), merge, vision.window_size, vision.patch_size
        )
        group = torch.argsort(window_index)
        unit = torch.arange(merge * merge, device=group.device)
        return (group[:, None] * merge * merge + unit).flatten()
