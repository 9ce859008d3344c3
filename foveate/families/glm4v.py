"""GLM-4V: grids as in Qwen2-VL; the frames of a video use the image placeholder."""

from __future__ import annotations

from foveate.errors import UnsupportedCall
from foveate.families.qwen2_vl import Qwen2VL


class Glm4v(Qwen2VL):
    name = "glm4v"
    placeholders = {"image": "image_token_id", "video": "image_token_id"}

    def check(self, config, inputs) -> None:
        encoded = inputs.get("mm_encoder_outputs") or {}
        if all(
            inputs.get(pixels) is not None or encoded.get(modality) is not None
            for modality, pixels in self.pixels.items()
        ):
            raise UnsupportedCall(
                "GLM-4V uses the same placeholder for images and videos, so one call can't have "
                "both; pass the image as a video with one frame, or make two calls."
            )
        video = encoded.get("video")
        # To repeat samples, `generate` looks for video placeholders, which do not exist here.
        if video is not None and len(video.pooler_output) == 0:
            raise UnsupportedCall(
                "GLM-4V does not support num_beams or num_return_sequences with videos; repeat "
                "the sample in the batch and generate one sequence for each row."
            )
