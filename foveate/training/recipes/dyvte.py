"""DyVTE: exit gates learn after which layer the answer no longer needs the visual tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import foveate
from foveate.benchmarks.controls import DropAllTokens
from foveate.benchmarks.loaded_model import LoadedModel
from foveate.method import Method
from foveate.methods.layers.dyvte import DyVTE, exit_labels, text_features
from foveate.parts import BoundaryState
from foveate.training.batches import IGNORED, Batch
from foveate.training.boundary_hook import BoundaryHook
from foveate.training.recipe import Recipe, Run


@dataclass(frozen=True, kw_only=True)
class DyVTERecipe(Recipe):
    """Each step trains a few gates on labels from forward passes with and without visual tokens.

    Attributes:
        gates: randomly drawn gates per step; the paper trains one.
        agreement: the label is "exit" if at least this ratio of predicted tokens stays the same.
        loss_ratio: and if the loss grows by at most this factor.
        hidden: width of the gates; None is half the model's width (2048 of 4096 in the paper).
    """

    slug = "dyvte"

    steps: int = 300
    pictures: int = 4
    gates: int = 4
    agreement: float = 0.99
    loss_ratio: float = 1.03
    hidden: int | None = None

    def method(self, base: LoadedModel) -> Method:
        width = base.model.config.get_text_config().hidden_size
        return DyVTE(weights="random", hidden=self.hidden or width // 2)

    def loss(self, run: Run, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        drawn = torch.randperm(run.base.layers - 1, generator=run.generator)[: self.gates]
        given, target = self.judged(run.model, run.module, batch, drawn.tolist())
        right = (given.argmax(1) == target).float().mean()
        figures = {"gate_accuracy": right.item(), "exit_ratio": target.float().mean().item()}
        return F.cross_entropy(given, target), figures

    def judged(
        self, model: Any, gates: nn.Module, batch: Batch, drawn: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Logits (G B, 2) of the gates of some layers, and their labels (G B,)."""
        seen: dict[str, Tensor] = {}

        def leave(state: BoundaryState) -> Tensor:
            asks = state.valid & (batch.labels == IGNORED)
            last = asks.long().cumsum(1).argmax(1)
            seen["x"] = text_features(state.hidden, state.visual, asks, last)
            return ~state.visual

        full, labels = _logits(model, batch), batch.labels[:, -batch.answer_length :]
        logits, targets = [], []
        for layer in drawn:
            with foveate.attach(model, BoundaryHook(hooks={layer + 1: leave})):
                out = _logits(model, batch)
            targets.append(exit_labels(full, out, labels, self.agreement, self.loss_ratio))
            logits.append(gates(layer, seen["x"]))
        return torch.cat(logits), torch.cat(targets)

    def rows(self, run: Run, trained: Method) -> dict[str, Method]:
        rows: dict[str, Method] = {"trained": trained}
        for bias in (-2.0, 2.0):
            rows[f"trained, exit_bias={bias:+g}"] = _with(trained, exit_bias=bias)
        for k in range(1, run.base.layers):
            rows[f"fixed exit before layer {k}"] = DropAllTokens(k=k)
        return rows


def _with(method: Method, **changed: Any) -> Method:
    return DyVTE(**{k: v for k, v in method.to_dict().items() if k != "method"} | changed)


@torch.no_grad()
def _logits(model: Any, batch: Batch) -> Tensor:
    """Logits (B, T, V) that predict the last T tokens, which hold the answers."""
    last = batch.answer_length + 1
    return model(**batch.inputs, logits_to_keep=last, use_cache=False).logits[:, :-1]
