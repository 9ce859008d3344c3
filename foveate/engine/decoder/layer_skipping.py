"""Runs `DetourPart`s: some columns skip a decoder layer and are added back after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foveate.contract_checks import check_runs
from foveate.engine.decoder.columns import as_merge
from foveate.engine.decoder.forward_call import DecoderCall, LayerSkip
from foveate.engine.prompt.prompt import Stage
from foveate.errors import InvalidParameter, UnsupportedCall
from foveate.ops.gather import rows_at
from foveate.parts import Detour, DetourPart, Part
from foveate.signals import DecoderHeads, DecoderKeys, DecoderTransition


class Detours:
    """The parts of one attachment that let columns skip layers, by layer."""

    def __init__(self, boundaries: Any, parts: list[Part]):
        self.boundaries = boundaries
        self.n: int = boundaries.n
        self.at: dict[int, list[DetourPart]] = {}
        for part in parts:
            for i in part.layers(self.n) if isinstance(part, DetourPart) else ():
                if not 0 <= i < self.n:
                    raise InvalidParameter(
                        f"Layer {i} is out of range: the model has {self.n} decoder layers "
                        f"(0-{self.n - 1})."
                    )
                self.at.setdefault(i, []).append(part)

    def enter(
        self, i: int, call: DecoderCall, module: nn.Module, hidden: Tensor, kw: dict[str, Any]
    ) -> Tensor:
        """The hidden states that layer i gets, from those of all columns `hidden` (B, N, D)."""
        stage = call.prompt.stream(i)
        call.prompt.detours.pop(i, None)
        detours = [self._detour(p, i, call, module, hidden, kw, stage) for p in self.at.get(i, ())]
        detours = [d for d in detours if d is not None]
        if not detours:
            return hidden
        detour = _together(detours)
        text = (stage.item < 0) & stage.valid
        run = text | detour.run & stage.valid
        gate = None if detour.gate is None else detour.gate.masked_fill(text, 1)
        short, columns = self.boundaries.after(i, call, stage, as_merge(run, stage), packed=False)
        if short.lengths == stage.lengths:
            call.skip = None if gate is None else LayerSkip(hidden, None, gate, None)
            return hidden
        self._refuse_readers(i)
        call.prompt.detours[i] = short
        call.skip = LayerSkip(hidden, _short_columns(columns, short, stage), gate, detour.follow)
        return rows_at(hidden, columns)

    def leave(self, call: DecoderCall, output: Tensor) -> Tensor | None:
        """The hidden states of all columns after the layer; None where the output is unchanged."""
        skip, call.skip = call.skip, None
        if skip is None:
            return None
        before, column = skip.hidden, skip.column
        out = output if column is None else rows_at(output, column.clamp(min=0))
        if skip.gate is not None:
            # In this form the output is bitwise unchanged where the gate is 1.
            out = out + (skip.gate[..., None].to(out.dtype) - 1) * (out - before)
        if column is None:
            return out
        skipped = before
        if skip.follow is not None:
            update = rows_at(out - before, skip.follow.clamp(min=0))
            skipped = torch.where((skip.follow < 0)[..., None], before, before + update)
        return torch.where((column < 0)[..., None], skipped, out)

    def _detour(
        self,
        part: DetourPart,
        i: int,
        call: DecoderCall,
        module: nn.Module,
        hidden: Tensor,
        kw: dict[str, Any],
        stage: Stage,
    ) -> Detour | None:
        state = self.boundaries.state(part, i, call, module, hidden, kw, stage)
        state.hidden = hidden
        state.notes = call.notes.setdefault(id(part), {})
        return check_runs(part, part.runs(i, self.n, state), stage.valid)

    def _refuse_readers(self, i: int) -> None:
        seen = [n for n in (DecoderKeys(i), DecoderTransition(i)) if n in self.boundaries.needs]
        if i in self.boundaries.followed:
            seen.append(DecoderHeads())
        if seen:
            raise UnsupportedCall(
                f"{type(seen[0]).__name__} of decoder layer {i} does not exist for tokens that "
                "skip the layer; use different layers for the two methods."
            )


def _together(detours: list[Detour]) -> Detour:
    """Combine several detours: a column runs if it runs in all of them, and gates multiply."""
    first, *others = detours
    run, gate, follow = first.run, first.gate, first.follow
    for other in others:
        run = run & other.run
        if other.gate is not None:
            gate = other.gate if gate is None else gate * other.gate
        follow = follow if other.follow is None else other.follow
    return Detour(run, gate, follow)


def _short_columns(columns: Tensor, short: Stage, stage: Stage) -> Tensor:
    """Column (B, N) of the shorter input that each column goes to, -1 for none."""
    short_columns = columns.new_full((len(columns), stage.n + 1), -1)
    steps = torch.arange(short.n, device=columns.device).expand_as(columns)
    # The index of a padding column is also that of a real one, so padding writes to a spare slot.
    short_columns.scatter_(1, columns.masked_fill(~short.valid, stage.n), steps)
    return short_columns[:, :-1]
