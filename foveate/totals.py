"""Sums over all calls of an attached model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from foveate.cost_table import CostTable, cost_rows, ratio, stage_times, summary, token_row
from foveate.figure_table import percent
from foveate.report import Report


@dataclass(repr=False)
class Totals(CostTable):
    """Sums over all calls of an attachment, `att.reports`.

    Attributes:
        method: the attached method, as `repr` shows it.
        calls: calls that began a prompt; a batch is one call.
        prompts: rows of all batches.
        items: visual items: images and videos; InternVL counts each tile of an image, Idefics3 and
            SmolVLM all images of a prompt.
        tokens_in: visual tokens before the method.
        tokens_out: visual tokens after the last stage of the method.
        flops: FLOPs of the LLM's prefill with the method.
        flops_full: FLOPs of the LLM's prefill with all visual tokens.
        vision_flops: FLOPs of the vision encoder in the calls where they are known; 0 where none
            are known.
        method_flops: FLOPs of the token selection (the selection overhead).
        kv_bytes: bytes of KV cache after the prefill with the method.
        kv_bytes_full: bytes of KV cache after the prefill with all visual tokens.
        seconds: per stage "encode", "select", "prefill" and "decode"; "per_token" is the decode
            time per step. Prompts without visual tokens are not timed.
    """

    method: str = ""
    calls: int = 0
    prompts: int = 0
    items: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    flops: int = 0
    flops_full: int = 0
    vision_flops: int = 0
    method_flops: int = 0
    kv_bytes: int = 0
    kv_bytes_full: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there was a call."""
        return bool(self.calls)

    def add(self, report: Report) -> None:
        """Add the figures of one call, its times apart."""
        self.calls += 1
        self.prompts += len(report.prompt_tokens)
        self.items += len(report.tokens_in)
        self.tokens_in += sum(report.tokens_in)
        self.tokens_out += sum(report.tokens_out)
        self.vision_flops += report.vision_flops or 0
        for name in ("flops", "flops_full", "method_flops", "kv_bytes", "kv_bytes_full"):
            setattr(self, name, getattr(self, name) + getattr(report, name))

    @property
    def retention_ratio(self) -> float:
        """Visual tokens out / in over all calls; 1.0 where there were none."""
        return ratio(self.tokens_out, self.tokens_in)

    @property
    def speedup(self) -> float:
        """Theoretical speed-up of the prefill: full FLOPs / FLOPs with the token selection."""
        return ratio(self.flops_full, self.flops + self.method_flops)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "retention_ratio": self.retention_ratio, "speedup": self.speedup}

    def _summary(self) -> str:
        calls = "1 call" if self.calls == 1 else f"{self.calls} calls"
        return f"{calls}, {summary(self.tokens_in, self.tokens_out, self.speedup)}"

    def _rows(self) -> list[tuple[str, ...]]:
        return [token_row("visual tokens", self.tokens_in, self.tokens_out), *cost_rows(self)]

    def _notes(self) -> list[str]:
        calls = "1 call" if self.calls == 1 else f"{self.calls} calls"
        retained = f"retention ratio: {percent(self.retention_ratio)}"
        return [
            f"{calls}, {self.prompts} prompts, {self.items} visual items",
            f"{retained}, theoretical prefill speed-up: {self.speedup:.2f}x",
            *stage_times(self.seconds),
        ]
