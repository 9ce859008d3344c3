"""CoViPAL: the module first learns to predict a deep layer's attention, then from the answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

import foveate
from foveate.benchmarks.loaded_model import LoadedModel
from foveate.method import Method
from foveate.methods.layers.covipal import CoViPAL, scores
from foveate.methods.layers.fastv import FastV
from foveate.methods.tokens.random import Random
from foveate.mini.errors import TrainingError
from foveate.parts import BoundaryState
from foveate.trained import lent
from foveate.training.attention_target import ROWS, TARGETS, attention_target
from foveate.training.batches import Batch
from foveate.training.boundary_hook import BoundaryHook
from foveate.training.recipe import Recipe, Run


@dataclass(frozen=True, kw_only=True)
class CoViPALRecipe(Recipe):
    """Two phases: regression of attention, then the answer loss with soft selection.

    Attributes:
        guided: fraction of the steps in the first phase.
        layer: decoder layer whose attention is predicted; None is the middle one.
        rows_of: whose attention counts: "last_nv" (the paper: as many last tokens as there are
            visual ones), "from_visual" (all from the first visual token on) or "text".
        target: "raw" (the paper: sum over heads and rows), "mean", "log1p" of the sum (limits
            attention sinks) or "standard" (log of the mean, standardised per prompt: scores then
            fit the temperature for any number of tokens).
        keeps: retention ratios of the second phase; one is drawn per step.
        boundary: decoder layers before which the method prunes.
        ppm: kind of the module, as in the method.
        inner: width of the module; None is a quarter of the model's, at most 256.
    """

    slug = "covipal"

    steps: int = 600
    rate: float = 2e-3
    guided: float = 0.5
    layer: int | None = None
    rows_of: str = "text"
    target: str = "standard"
    keeps: tuple[float, ...] = (0.5, 0.25, 0.125)
    boundary: tuple[int, ...] = (0,)
    ppm: str = "cross"
    inner: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows_of not in ROWS or self.target not in TARGETS:
            raise TrainingError(
                f"rows_of={self.rows_of!r}, target={self.target!r}: use one of {', '.join(ROWS)} "
                f"and one of {', '.join(TARGETS)}."
            )

    def method(self, base: LoadedModel) -> Method:
        width = base.model.config.get_text_config().hidden_size
        inner = self.inner or min(256, width // 4 // 8 * 8)
        sizes = {"boundary": self.boundary, "ppm": self.ppm, "inner": inner}
        return CoViPAL(weights="random", temperature=0.2, **sizes)

    def loss(self, run: Run, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        if run.share < self.guided:
            loss = self._attention_loss(run, batch)
            return loss, {"attention_loss": loss.item()}
        drawn = int(torch.randint(len(self.keeps), (1,), generator=run.generator))
        method = replace(run.method, keep=self.keeps[drawn])
        with lent(self.slug, run.module), foveate.attach(run.model, method):
            loss = run.model(**batch.inputs, labels=batch.labels, use_cache=False).loss
        return loss, {"answer_loss": loss.item()}

    def _attention_loss(self, run: Run, batch: Batch) -> Tensor:
        states: dict[int, BoundaryState] = {}
        deep = run.base.layers // 2 if self.layer is None else self.layer
        wanted: dict[str, Tensor] = {}
        if deep <= max(run.method.boundary):
            raise TrainingError(
                f"layer={deep} must be deeper than the pruning layer {max(run.method.boundary)}, "
                "because its attention is the training target."
            )

        def note(state: BoundaryState) -> None:
            states[len(states)] = replace(state, labels=batch.labels)

        def guide(state: BoundaryState) -> None:
            wanted["sums"] = attention_target(
                state.heads(), state.visual, self.rows_of, self.target
            )

        hook = BoundaryHook(hooks={**dict.fromkeys(run.method.boundary, note), deep: guide})
        with torch.no_grad(), foveate.attach(run.model, hook):
            run.model(**batch.prompts, use_cache=False)
        visual = states[0].visual
        losses = [
            (scores(part, states[i]) - wanted["sums"])[visual].square().mean()
            for i, part in enumerate(run.module)
        ]
        return torch.stack(losses).mean()

    def rows(self, run: Run, trained: Method) -> dict[str, Method]:
        rows: dict[str, Method] = {}
        for keep in (0.5, 0.25, 0.125):
            rows[f"trained, {keep:.1%}"] = replace(trained, keep=keep)
            plain = replace(trained, weights="random", keep=keep)
            rows[f"untrained, {keep:.1%}"] = plain
            rows[f"random, {keep:.1%}"] = Random(keep=keep, positions="original")
            # The same mean retention ratio: all tokens in layer 0, fewer after it.
            later = (keep * run.base.layers - 1) / (run.base.layers - 1)
            if later > 0:
                rows[f"FastV from layer 1, {keep:.1%}"] = FastV(keep=later, k=1)
        return rows
