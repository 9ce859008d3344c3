"""VideoLLaMA3: pictures of any size, merged by each item's own factor behind the tower."""

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
                f"{modality}_merge_sizes={sizes}: tokens of more than 2x2 patches are made of "
                "some of them only; use merge sizes 1 and 2."
            )
        return sizes

    def check(self, config, inputs) -> None:
        mask = inputs.get("video_compression_mask")
        if mask is not None and not mask.all():
            raise UnsupportedCall(
                "video_compression_mask drops tokens behind foveate's back; call the processor "
                "with use_token_compression=False and let the attached method reduce."
            )
