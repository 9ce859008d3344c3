"""SmolVLM: crops and tokens lie as in Idefics3."""

from __future__ import annotations

from foveate.families.idefics3 import Idefics3


class SmolVLM(Idefics3):
    name = "smolvlm"
