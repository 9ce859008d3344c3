"""PaliGemma: a SigLIP encoder, a linear projector, bidirectional attention in the prompt."""

from __future__ import annotations

from foveate.families.llava import Llava


class PaliGemma(Llava):
    name = "paligemma"
    position_offset = 1
    # Type 0 is the prompt, which has bidirectional attention. Padding must have another type.
    type_pad = 1
    prefix = True
