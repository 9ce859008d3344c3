"""Converts labels and logits between the full prompt and the shortened one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foveate.engine.prompt.prompt import Prompt, Stage
from foveate.errors import UnsupportedCall

IGNORED = -100


class Targets:
    """Labels, shifted labels and `logits_to_keep` of one forward call.

    The model gets copies of the labels. After the last layer ran, the copies are shortened in
    place. So any forward, also that of a trainer, computes its loss on the columns that are left.

    Attributes:
        labels: The caller's labels (B, L), or None.
        logits_to_keep: The caller's value, with positions as a (B, P) tensor.
        shortened: The prompt, once it was shortened.
    """

    def __init__(self) -> None:
        self.labels: Tensor | None = None
        self.logits_to_keep: Any = None
        self.shortened: Prompt | None = None
        self._labels: Tensor | None = None
        self._shifted: Tensor | None = None

    def take(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The call with copies of the labels, and with positions to keep as (B, P) tensors."""
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
                    "logits_to_keep as a boolean mask is not supported when tokens are dropped; "
                    "pass integer positions."
                )
            rows = kwargs["input_ids"].shape[0]
            kwargs["logits_to_keep"] = keep.expand(rows, -1).clone()
        self.logits_to_keep = kwargs.get("logits_to_keep")
        return kwargs

    def follow(self, prompt: Prompt) -> None:
        """Shorten labels and positions in place to the columns after the last layer."""
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
        """The output with logits as the caller expects them; None for no change.

        Args:
            output: The output of the model.
            full: Whether to return logits for every column of the full prompt. None: shortened
                logits, refused in training without labels, because a loss outside the model would
                not fit them.
            training: Whether the model is in training mode.
        """
        prompt, keep = self.shortened, self.logits_to_keep
        logits = _logits(output)
        if prompt is None or logits is None or isinstance(keep, Tensor) or keep:
            return None
        if full is None and training and self.labels is None:
            raise UnsupportedCall(
                "The prompt was shortened, so its logits don't match labels outside the model; "
                "pass labels to the model, or attach with full_logits=True, or attach with "
                "full_logits=False and shorten the labels with Attachment.align_labels."
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
    """Labels (B, L) at the columns of a stage, (B, N).

    The first token of a row has no predecessor that predicts it, so its label is ignored.
    """
    moved = labels.gather(1, stage.prompt_column.to(labels.device))
    valid = stage.valid.to(labels.device)
    first = valid.long().cumsum(1) == 1
    return moved.masked_fill(~valid | first, IGNORED)


def expanded(logits: Tensor, prompt: Prompt) -> Tensor:
    """Expand logits (B, N, V) of the shortened prompt to the full prompt, (B, L, V).

    A dropped column gets the logits of the last kept column before it.
    """
    at = _places(prompt).to(logits.device)
    steps = torch.arange(prompt.length, device=at.device)
    before = torch.where(at < 0, -1, steps).cummax(1).values.clamp(min=0)
    index = at.gather(1, before).clamp(min=0)[..., None]
    return logits.gather(1, index.expand(-1, -1, logits.shape[2]))


def _places(prompt: Prompt) -> Tensor:
    """Column (B, L) of the last stage for each column of the full prompt, -1 where dropped."""
    stage = prompt.stages[-1]
    b, length = stage.prompt_column.shape[0], prompt.length
    at = torch.full((b, length + 1), -1, device=stage.prompt_column.device)
    steps = torch.arange(stage.n, device=at.device).expand(b, -1)
    # Prompt column -> column of the last stage; padding writes into a spare entry at the end.
    at.scatter_(1, stage.prompt_column.masked_fill(~stage.valid, length), steps)
    return at[:, :-1]


def _behind(shifted: Tensor) -> Tensor:
    """Labels of the columns from shifted labels, which belong to the next column."""
    return torch.nn.functional.pad(shifted[:, :-1], (1, 0), value=IGNORED)


def _point(keep: Tensor, prompt: Prompt) -> None:
    new = _places(prompt).gather(1, keep % prompt.length)
    if bool((new < 0).any()):
        raise UnsupportedCall(
            "logits_to_keep has the position of a visual token that was dropped; pass positions "
            "of text tokens only."
        )
    keep.copy_(new)
