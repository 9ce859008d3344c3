"""ATP-LLaVA: thresholds learn from the answers, and from what they let through."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

import foveate
from foveate.benchmarks.loaded_model import LoadedModel
from foveate.method import Method
from foveate.methods.layers.atp_llava import ATPLLaVA
from foveate.methods.layers.pyramiddrop import PyramidDrop
from foveate.methods.tokens.random import Random
from foveate.parts import BoundaryState, LayersPart
from foveate.trained import lent
from foveate.training.batches import Batch
from foveate.training.recipe import Recipe, Run


@dataclass(frozen=True, kw_only=True, repr=False)
class Watched(Method, LayersPart):
    """ATP-LLaVA with its soft masks laid open: by boundary, (B, N) and the visual columns."""

    slug = "watched"

    positions: str = "original"
    method: ATPLLaVA
    masks: dict[int, tuple[Tensor, Tensor]]

    @property
    def needs(self):
        return self.method.needs

    def boundaries(self, layers: int) -> tuple[int, ...]:
        return self.method.boundaries(layers)

    def at_boundary(self, k: int, layers: int, state: BoundaryState):
        verdict = self.method.at_boundary(k, layers, state)
        self.masks[k] = (state.notes["soft"], state.visual)
        return verdict


@dataclass(frozen=True, kw_only=True)
class ATPLLaVARecipe(Recipe):
    """lambda_atp, lambda_target: weights of the cost of late tokens and of the missed share, the
    latter rising over the first `anneal` of the steps. least, most: the share that is asked for is
    drawn between them at every step; equal ones are the paper's single target. scores: of the
    method; visual queries of the embedded models look for what is like them, which is background,
    so that with "both" no threshold helps as long as the model itself isn't trained.
    """

    slug = "atp_llava"

    steps: int = 400
    rate: float = 3e-3
    lambda_atp: float = 0.01
    lambda_target: float = 5.0
    anneal: float = 0.2
    least: float = 0.2
    most: float = 0.8
    scores: str = "cross"

    def method(self, base: LoadedModel) -> Method:
        return ATPLLaVA(weights="random", scores=self.scores)

    def loss(self, run: Run, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        span = torch.rand((), generator=run.generator).item()
        share = self.least + (self.most - self.least) * span
        masks: dict[int, tuple[Tensor, Tensor]] = {}
        watched = Watched(method=replace(run.method, keep=share), masks=masks)
        with lent(self.slug, run.module), foveate.attach(run.model, watched):
            told = run.model(**batch.inputs, labels=batch.labels, use_cache=False).loss
        layers = run.base.layers
        bounds = [0, *sorted(masks), layers]
        kept = [torch.ones(len(batch.labels), device=told.device)]
        for k in sorted(masks):
            m, visual = masks[k]
            kept.append((m * visual).sum(1) / visual.sum(1).clamp(min=1))
        spans = [b - a for a, b in zip(bounds, bounds[1:], strict=False)]
        mean = sum(x * n for x, n in zip(kept, spans, strict=True)) / layers
        late = sum(x.mean() * k for x, k in zip(kept[1:], sorted(masks), strict=True))
        # On average over the batch, so that hard pictures may take what easy ones leave.
        missed = (mean.mean() - share).abs()
        rise = min(1.0, run.share / self.anneal) if self.anneal else 1.0
        loss = told + self.lambda_atp * late + rise * self.lambda_target * missed
        figures = {"answers": told.item(), "missed": missed.item(), "spread": mean.std().item()}
        return loss, figures

    def rows(self, run: Run, trained: Method) -> dict[str, Method]:
        rows: dict[str, Method] = {}
        for keep in (0.7, 0.5, 0.35):
            rows[f"trained, {keep:.0%}"] = replace(trained, keep=keep)
            rows[f"untrained, {keep:.0%}"] = replace(trained, weights="random", keep=keep)
            both = replace(trained, weights="random", scores="both", keep=keep)
            rows[f"untrained, both scores, {keep:.0%}"] = both
            rows[f"PyramidDrop, {keep:.0%}"] = PyramidDrop(keep=keep, positions="original")
            rows[f"random, {keep:.0%}"] = Random(keep=keep, positions="original")
        return rows
