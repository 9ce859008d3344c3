"""Training targets and logits, between the caller's sequence and the shortened one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foveate.engine.prompt.prompt import Prompt, Stage
from foveate.errors import UnsupportedCall

IGNORED = -100


class Targets:
    """What one forward call was given with an entry per column, and what it gives back.

    labels: the caller's targets (B, L), None without any. They go into the call as copies, which
    are shortened once the last layer has run: whatever forward there is, a trainer's own included,
    computes its loss on the columns that are left.
    """

    def __init__(self) -> None:
        self.labels: Tensor | None = None
        self.logits_to_keep: Any = None
        self.shortened: Prompt | None = None
        self._labels: Tensor | None = None
        self._shifted: Tensor | None = None

    def take(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The call with copies of targets, and with asked positions as own (B, P) tensors."""
        kwargs = dict(kwargs)
        given, shifted = kwargs.get("labels"), kwargs.get("shift_labels")
        if isinstance(given, Tensor):
            self.labels = given
            kwargs["labels"] = self._labels = given.clone()
        if isinstance(shifted, Tensor):
            kwargs["shift_labels"] = self._shifted = shifted.clone()
            if self.labels is None:
                self.labels = _behind(shifted)
        keep = kwargs.get("logits_to_keep")
        if isinstance(keep, Tensor):
            if keep.dtype == torch.bool:
                raise UnsupportedCall(
                    "logits_to_keep as a mask can't follow dropped tokens; pass integer positions."
                )
            rows = kwargs["input_ids"].shape[0]
            kwargs["logits_to_keep"] = keep.expand(rows, -1).clone()
        self.logits_to_keep = kwargs.get("logits_to_keep")
        return kwargs

    def follow(self, prompt: Prompt) -> None:
        """Make targets and asked positions those of the last stage, in place."""
        stage = prompt.stages[-1]
        if stage is prompt.first and not prompt.reduced:
            return
        self.shortened = prompt
        keep = self.logits_to_keep
        if isinstance(keep, Tensor):
            _point(keep, prompt)
        if self._labels is not None:
            self._labels.data = moved(self._labels, stage)
        if self._shifted is not None:
            short = moved(_behind(self._shifted), stage)
            self._shifted.data = torch.nn.functional.pad(short[:, 1:], (0, 1), value=IGNORED)

    def whole(self, output: Any, full: bool | None, training: bool) -> Any:
        """The output as the caller asked for it.

        full: whether logits have an entry for each of the caller's columns; None refuses logits of
        which a loss is about to be computed outside.
        """
        prompt, keep = self.shortened, self.logits_to_keep
        logits = _logits(output)
        if prompt is None or logits is None or isinstance(keep, Tensor) or keep:
            return None
        if full is None and training and self.labels is None:
            raise UnsupportedCall(
                "In training the logits of a shortened prompt don't fit labels outside the model; "
                "pass labels to the model, or attach with full_logits=True, or with "
                "full_logits=False to shorten labels yourself by Attachment.align_labels."
            )
        if not full:
            return None
        whole = expanded(logits, prompt)
        if isinstance(output, tuple):
            return tuple(whole if x is logits else x for x in output)
        output["logits"] = whole
        return output


def _logits(output: Any) -> Tensor | None:
    if isinstance(output, tuple):
        return next((x for x in output if isinstance(x, Tensor) and x.dim() == 3), None)
    return getattr(output, "logits", None)


def moved(labels: Tensor, stage: Stage) -> Tensor:
    """Targets (B, L) of the columns of a stage, (B, N).

    A row's first token has no predecessor to be predicted from, whatever padding now precedes it.
    """
    moved = labels.gather(1, stage.index.to(labels.device))
    valid = stage.valid.to(labels.device)
    first = valid.long().cumsum(1) == 1
    return moved.masked_fill(~valid | first, IGNORED)


def expanded(logits: Tensor, prompt: Prompt) -> Tensor:
    """Logits (B, N, V) of the columns that are left at all of the caller's, (B, L, V).

    A column that was dropped takes those of the last one in front that was not, which predict the
    token that follows.
    """
    at = _places(prompt).to(logits.device)
    steps = torch.arange(prompt.length, device=at.device)
    before = torch.where(at < 0, -1, steps).cummax(1).values.clamp(min=0)
    index = at.gather(1, before).clamp(min=0)[..., None]
    return logits.gather(1, index.expand(-1, -1, logits.shape[2]))


def _places(prompt: Prompt) -> Tensor:
    """Column (B, L) of the last stage that holds each of the caller's, -1 for none."""
    stage = prompt.stages[-1]
    b, length = stage.index.shape[0], prompt.length
    at = torch.full((b, length + 1), -1, device=stage.index.device)
    steps = torch.arange(stage.n, device=at.device).expand(b, -1)
    at.scatter_(1, stage.index.masked_fill(~stage.valid, length), steps)
    return at[:, :-1]


def _behind(shifted: Tensor) -> Tensor:
    """Targets of the columns themselves from those of the columns behind each."""
    return torch.nn.functional.pad(shifted[:, :-1], (1, 0), value=IGNORED)


def _point(keep: Tensor, prompt: Prompt) -> None:
    new = _places(prompt).gather(1, keep % prompt.length)
    if bool((new < 0).any()):
        raise UnsupportedCall(
            "logits_to_keep asks for a visual token that was dropped; ask for text positions."
        )
    keep.copy_(new)
