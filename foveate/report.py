"""What a method did in a call of an attached model, and what the call cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from foveate.cost_table import (
    CostTable,
    cost_rows,
    ranges,
    ratio,
    stage_times,
    summary,
    token_row,
    token_times,
    ttft,
)
from foveate.figure_table import figure, percent
from foveate.tokens import Layout

_ITEMS = 8
"""Visual items that `str(report)` shows one by one."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores by which a method ranked the tokens of one visual item at one place.

    Attributes:
        stage: where the tokens were ranked: "encoders", "tokens", "layers" or "caches".
        layer: 0-based decoder layer k: the tokens were ranked before it, or in its attention; None
            before the LLM.
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


@dataclass(repr=False)
class Report(CostTable):
    """Figures of one call: a forward pass, or a whole `generate`.

    `print(report)` shows a table; a notebook shows it as HTML. Before the first call the report
    names the method only: `bool(report)` is False and `str(report)` is "no call yet". A stage that
    has not run is absent from `seconds`, and a time that was not measured is 0.0.

    Attributes:
        method: the attached method, as `repr` shows it.
        tokens_in: visual tokens per item before the method; `foveate.method.Method` says what an
            item is.
        tokens_out: visual tokens per item after the last stage of the method. For a method inside
            the LLM these are the tokens that leave the last decoder layer.
        kept: per item the slots of the tokens that are left, ascending.
        tokens_by_layer: per item the visual tokens that each decoder layer processes.
        prompt_tokens: tokens per row of the batch that enter the LLM, text included.
        flops: FLOPs of the LLM's prefill with the method, summed over the batch.
        flops_full: FLOPs of the LLM's prefill with all visual tokens.
        vision_flops: FLOPs of the vision encoder; None where they are unknown, and for a prompt
            without images or videos.
        method_flops: FLOPs of the token selection (the selection overhead).
        kv_bytes: bytes of the KV cache after the prefill with the method.
        kv_bytes_full: bytes of the KV cache after the prefill with all visual tokens.
        seconds: per stage "encode", "select", "prefill" and "decode"; "per_token" is the decode
            time per output token. Empty for a prompt without visual tokens.
        traces: per item what `foveate.view` draws.
        peak_memory: most bytes of GPU memory that were allocated during the call, weights
            included. Only `foveate.compare` measures it, on CUDA, because that resets PyTorch's
            counter; None everywhere else.
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
    peak_memory: int | None = None

    def __bool__(self) -> bool:
        """Whether there was a call."""
        return bool(self.prompt_tokens)

    @property
    def retention_ratio(self) -> float:
        """Visual tokens out / in over all items; 1.0 for a prompt without visual tokens."""
        return ratio(sum(self.tokens_out), sum(self.tokens_in))

    @property
    def mean_retention_ratio(self) -> float:
        """Visual tokens that a decoder layer processes on average / visual tokens in.

        It differs from `retention_ratio` for methods inside the LLM, and says more of their cost.
        """
        by_layer = self._by_layer()
        return ratio(sum(by_layer) / max(1, len(by_layer)), sum(self.tokens_in))

    @property
    def speedup(self) -> float:
        """Theoretical speed-up of the prefill: full FLOPs / FLOPs with the token selection."""
        return ratio(self.flops_full, self.flops + self.method_flops)

    @property
    def ttft(self) -> float:
        """Seconds to the first token: encode, select and prefill; 0.0 where not measured."""
        return ttft(self.seconds)

    @property
    def time_per_output_token(self) -> float:
        """Seconds of decoding per output token after the first; 0.0 before one was decoded."""
        return self.seconds.get("per_token", 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without `traces`."""
        plain = {k: v for k, v in vars(self).items() if k not in ("traces", "kept")}
        return {
            **plain,
            "kept": [k.tolist() for k in self.kept],
            "retention_ratio": self.retention_ratio,
            "mean_retention_ratio": self.mean_retention_ratio,
            "speedup": self.speedup,
            "ttft": self.ttft,
            "time_per_output_token": self.time_per_output_token,
        }

    def _summary(self) -> str:
        return summary(sum(self.tokens_in), sum(self.tokens_out), self.speedup)

    def _by_layer(self) -> list[int]:
        """Visual tokens of all items that each decoder layer processes."""
        return [sum(layer) for layer in zip(*self.tokens_by_layer, strict=True)]

    def _rows(self) -> list[tuple[str, ...]]:
        if not self.tokens_in:
            return cost_rows(self)
        row = token_row("visual tokens", sum(self.tokens_in), sum(self.tokens_out))
        return [row, *cost_rows(self)]

    def _notes(self) -> list[str]:
        speedup = f"theoretical prefill speed-up: {self.speedup:.2f}x"
        if not self.tokens_in:
            return ["no visual tokens in this prompt", speedup]
        retained = f"retention ratio: {percent(self.retention_ratio)}"
        by_layer = self._by_layer()
        if len(set(by_layer)) > 1:
            retained += f", mean over layers: {percent(self.mean_retention_ratio)}"
        notes = [f"{retained}, {speedup}", f"visual tokens per layer: {ranges(by_layer)}"]
        if 1 < len(self.tokens_in) <= _ITEMS:
            pairs = zip(self.tokens_in, self.tokens_out, strict=True)
            items = ", ".join(f"{n} -> {left}" for n, left in pairs)
            notes.insert(1, f"visual tokens per item: {items}")
        notes += stage_times(self.seconds) + token_times(self.seconds)
        if self.peak_memory is not None:
            notes.append(f"peak memory: {figure(self.peak_memory / 1e6)} MB")
        return notes
