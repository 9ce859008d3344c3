"""Qwen3-VL: as Qwen2-VL, with features of earlier tower blocks added inside the decoder."""

from __future__ import annotations

from foveate.families.qwen2_vl import Qwen2VL


class Qwen3VL(Qwen2VL):
    name = "qwen3_vl"
