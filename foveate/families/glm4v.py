"""GLM-4V: grids as in Qwen2-VL; frames of a video stand under the image placeholder."""

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
                "GLM-4V marks images and videos by the same placeholder, so one call can't hold "
                "both; give the image as a video of one frame, or make two calls."
            )
        video = encoded.get("video")
        # Repeating samples, `generate` looks for video placeholders, of which there are none.
        if video is not None and len(video.pooler_output) == 0:
            raise UnsupportedCall(
                "GLM-4V can't repeat a video for num_beams or num_return_sequences; repeat the "
                "sample in the batch and draw one sequence for each."
            )
