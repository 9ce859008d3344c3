"""VideoLLaMA3: images of any size, pooled after the encoder by each item's own factor."""

from __future__ import annotations

from foveate.errors import UnsupportedCall
from foveate.families.qwen2_vl import Qwen2VL


class VideoLlama3(Qwen2VL):
    name = "video_llama_3"
    towers = {"image": "vision_model", "video": "vision_model"}
    blocks = "encoder.layers"
    attention = "self_attn"
    key = "k_proj"
    projector = "projector"

    def merge_sizes(self, config, modality, inputs) -> list[int]:
        sizes = inputs[f"{modality}_merge_sizes"].tolist()
        if max(sizes) > 2:
            raise UnsupportedCall(
                f"{modality}_merge_sizes={sizes} is not supported, because tokens of more than "
                "2x2 patches use only some of them; use merge sizes 1 and 2."
            )
        return sizes

    def check(self, config, inputs) -> None:
        mask = inputs.get("video_compression_mask")
        if mask is not None and not mask.all():
            raise UnsupportedCall(
                "video_compression_mask drops visual tokens, which is not supported together with "
                "a method; call the processor with use_token_compression=False."
            )
