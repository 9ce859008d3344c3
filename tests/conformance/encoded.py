"""The vision encoder output of a case, as a method before the LLM receives it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from foveate.families.base import raster
from foveate.signals import ClassState, ProjectorInput, Signals, VisionAttention, VisionKeys
from foveate.tokens import VisualTokens


def encoded(inputs: Mapping[str, Tensor]) -> tuple[VisualTokens, Signals]:
    """Tokens and signals of a case with `hidden` (B, 1 + N, D), `cls_attn` and `metric`."""
    hidden, attention = inputs["hidden"], inputs["cls_attn"]
    tokens = raster(1, 1, attention.shape[2]).tokens(hidden[:, 1:])
    signals = {
        VisionAttention(): attention,
        VisionKeys(): inputs["metric"][:, None, 1:],
        ProjectorInput(): hidden[:, 1:],
        ClassState(): hidden[:, :1],
    }
    return tokens, Signals(signals)
