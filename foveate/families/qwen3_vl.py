"""Qwen3-VL: as Qwen2-VL, with DeepStack features of earlier blocks added inside the LLM."""

from __future__ import annotations

from foveate.families.qwen2_vl import Qwen2VL


class Qwen3VL(Qwen2VL):
    name = "qwen3_vl"
