"""What happened in the last call of an attached model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from foveate.tokens import Layout


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores by which a method ranked the tokens of one visual item at one place.

    Attributes:
        stage: where the tokens were ranked: "encoders", "tokens", "layers" or "caches".
        layer: boundary k, tokens were pruned before decoder layer k; None before the LLM.
        method: slug of the method.
        values: (S,) float32 on the CPU, one score per slot of `Trace.layout`; larger is kept. A
            merged token gives its score to every slot that it holds. NaN where a slot was not
            ranked: it had been dropped, or it is a special token such as a newline.
    """

    stage: str
    layer: int | None
    method: str
    values: Tensor


@dataclass(frozen=True)
class LayerSpan:
    """What consecutive decoder layers process of one visual item.

    Attributes:
        first: first layer, 0-based.
        last: last layer, included.
        tokens: visual tokens of the item in each of these layers.
        assign: (S,) int tensor, the token that holds each slot, -1 where these layers do not
            process it.
    """

    first: int
    last: int
    tokens: int
    assign: Tensor


@dataclass(frozen=True)
class Trace:
    """What became of one visual item, on the CPU: enough to draw it.

    Attributes:
        layout: all S slots of the item.
        index: (K,) the slot that each kept token stands in, -1 for a vector that had none.
        assign: (S,) the kept token that holds each slot, -1 where it was dropped.
        size: (K,) slots that each kept token stands for.
        scores: one entry per place where a method ranked tokens, in the order in which they were
            ranked; empty unless the model was attached with `record_scores=True`.
        by_layer: what the decoder layers process, one entry per change, first layer first.
        drawn_as: how pictures show the tokens, see `foveate.parts.Part.drawn_as`.
        cell: pixels per side of the square that a slot covers in the encoder's picture; 0 where
            that is unknown.
    """

    layout: Layout
    index: Tensor
    assign: Tensor
    size: Tensor
    scores: tuple[Scores, ...] = ()
    by_layer: tuple[LayerSpan, ...] = ()
    drawn_as: str = "patches"
    cell: int = 0

    def cpu(self) -> Trace:
        """The trace on the CPU."""
        return replace(
            self,
            index=self.index.cpu(),
            assign=self.assign.cpu(),
            size=self.size.cpu(),
            scores=tuple(replace(s, values=s.values.float().cpu()) for s in self.scores),
        )


@dataclass
class Report:
    """Figures of one call: a forward pass, or a whole `generate`.

    tokens_in, tokens_out: visual tokens per item before reduction and behind the last stage.
    kept: per item the slots that survive, ascending. tokens_by_layer: per item the tokens that
    each decoder layer processed. flops, flops_full: prefill of the language model with and without
    reduction, summed over the batch. vision_flops: the towers', None where unknown. method_flops:
    what choosing costs by itself. kv_bytes, kv_bytes_full: cache after the prompt. seconds: per
    stage "encode", "select", "prefill", "decode" and, once a token was decoded, "per_token".
    traces: what pictures are drawn from.
    """

    method: str = ""
    tokens_in: list[int] = field(default_factory=list)
    tokens_out: list[int] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)
    tokens_by_layer: list[list[int]] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    flops: int = 0
    flops_full: int = 0
    vision_flops: int | None = None
    method_flops: int = 0
    kv_bytes: int = 0
    kv_bytes_full: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    traces: list[Trace] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; traces are left out."""
        plain = {k: v for k, v in vars(self).items() if k not in ("traces", "kept")}
        return {**plain, "kept": [k.tolist() for k in self.kept]}
