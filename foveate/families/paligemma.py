"""PaliGemma: a SigLIP tower, a linear projector, a prompt that sees itself in both directions."""

from __future__ import annotations

from foveate.families.llava import Llava


class PaliGemma(Llava):
    name = "paligemma"
    position_offset = 1
    # Type 0 is the prompt, all of which is visible to all; padding must not belong to it.
    type_pad = 1
    prefix = True
