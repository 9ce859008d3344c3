"""Training targets and asked logits, moved to the shortened sequence."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from foveate.engine.anatomy import Anatomy
from foveate.engine.prompt import Prompt, Stage
from foveate.errors import UnsupportedCall


class Targets:
    """Takes `labels` out of a forward call and computes the loss on the columns that are left."""

    def __init__(self, anatomy: Anatomy):
        self.anatomy = anatomy
        self._names = set(inspect.signature(anatomy.outer.forward).parameters) - {"kwargs"}

    def take(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The call without labels; tensors in `logits_to_keep` become own (B, P) positions."""
        kwargs = dict(kwargs)
        if kwargs.get("labels") is not None:
            kwargs["labels"] = None
        keep = kwargs.get("logits_to_keep")
        if isinstance(keep, Tensor):
            if keep.dtype == torch.bool:
                raise UnsupportedCall(
                    "logits_to_keep as a mask can't follow dropped tokens; pass integer positions."
                )
            rows = kwargs["input_ids"].shape[0]
            kwargs["logits_to_keep"] = keep.expand(rows, -1).clone()
        return kwargs

    def point(self, keep: Any, prompt: Prompt) -> None:
        """Make asked positions (B, P) point at the same tokens behind the last stage, in place."""
        stage = prompt.stages[-1]
        if not isinstance(keep, Tensor) or stage is prompt.first and not prompt.reduced:
            return
        where = torch.full_like(stage.index[:, :1], -1).expand(-1, prompt.length + 1).clone()
        steps = torch.arange(stage.n, device=where.device).expand_as(stage.index)
        where.scatter_(1, stage.index.masked_fill(~stage.valid, prompt.length), steps)
        new = where.gather(1, keep % prompt.length)
        if bool((new < 0).any()):
            raise UnsupportedCall(
                "logits_to_keep asks for a visual token that was dropped; ask for text positions."
            )
        keep.copy_(new)

    def loss(self, output: Any, labels: Tensor, prompt: Prompt | None, kwargs: dict) -> Any:
        """The output with the loss over the columns that reached the last layer."""
        if prompt is not None:
            stage = prompt.stages[-1]
            whole = stage is prompt.first and not prompt.reduced
            labels = labels if whole else _moved(labels, stage)
        logits = output[0] if isinstance(output, tuple) else output.logits
        extra = {k: v for k, v in kwargs.items() if k not in self._names}
        loss = self.anatomy.outer.loss_function(
            logits=logits,
            labels=labels,
            vocab_size=self.anatomy.config.get_text_config().vocab_size,
            **extra,
        )
        if isinstance(output, tuple):
            return (loss, *output)
        return type(output)(**{**output, "loss": loss})


def _moved(labels: Tensor, stage: Stage) -> Tensor:
    """Targets (B, L) of the columns of a stage.

    A row's first token has no predecessor to be predicted from, whatever padding now precedes it.
    """
    moved = labels.gather(1, stage.index).masked_fill(~stage.valid, -100)
    first = stage.valid.long().cumsum(1) == 1
    return moved.masked_fill(first & stage.valid, -100)
