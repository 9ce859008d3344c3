"""ATP-LLaVA: thresholds learn from the answer loss and from the retention ratio."""

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
class RecordedMasks(Method, LayersPart):
    """ATP-LLaVA that records its soft masks.

    Attributes:
        positions: "original" keeps the position ids.
        method: the method in training.
        masks: by boundary, soft mask (B, N) and which tokens are visual (B, N).
    """

    slug = "recorded_masks"

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
    """The loss is the answer loss + lambda_atp * cost of late tokens + lambda_target * keep error.

    Attributes:
        lambda_atp: weight of the cost of tokens that are kept until late layers.
        lambda_target: weight of the difference between mean and target retention ratio.
        anneal: fraction of the steps in which lambda_target rises from 0.
        least: smallest target retention ratio; one is drawn per step.
        most: largest one. least == most is the paper's single target.
        scores: of the method. In the embedded models self-attention between visual tokens favours
            background, so "both" does not help while the model stays frozen.
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
        recorded = RecordedMasks(method=replace(run.method, keep=share), masks=masks)
        with lent(self.slug, run.module), foveate.attach(run.model, recorded):
            answers = run.model(**batch.inputs, labels=batch.labels, use_cache=False).loss
        layers = run.base.layers
        bounds = [0, *sorted(masks), layers]
        kept = [torch.ones(len(batch.labels), device=answers.device)]
        for k in sorted(masks):
            m, visual = masks[k]
            kept.append((m * visual).sum(1) / visual.sum(1).clamp(min=1))
        spans = [b - a for a, b in zip(bounds, bounds[1:], strict=False)]
        mean = sum(x * n for x, n in zip(kept, spans, strict=True)) / layers
        late = sum(x.mean() * k for x, k in zip(kept[1:], sorted(masks), strict=True))
        # The target is for the batch mean: hard images may keep more than easy ones.
        keep_error = (mean.mean() - share).abs()
        rise = min(1.0, run.share / self.anneal) if self.anneal else 1.0
        loss = answers + self.lambda_atp * late + rise * self.lambda_target * keep_error
        return loss, {
            "answer_loss": answers.item(),
            "keep_error": keep_error.item(),
            "keep_std": mean.std().item(),
        }

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
