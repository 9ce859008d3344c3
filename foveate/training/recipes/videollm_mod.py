"""VideoLLM-MoD: routers learn through their gates what the language model's loss asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

import foveate
from foveate.benchmarks.subject import Subject
from foveate.method import Method
from foveate.methods.layers.videollm_mod import VideoLLMMoD
from foveate.trained import lent
from foveate.training.batches import Batch
from foveate.training.recipe import Recipe, Run


@dataclass(frozen=True, kw_only=True)
class VideoLLMMoDRecipe(Recipe):
    """keep_ratio, gate: of the method. The decoder stays frozen, unlike in the paper."""

    slug = "videollm_mod"

    steps: int = 200
    pictures: int = 4
    questions: int = 4
    # The residual stream is wide and unnormed: larger steps throw raw gates about.
    rate: float = 2e-4
    keep_ratio: float = 0.2
    gate: str = "raw"

    def method(self, subject: Subject) -> VideoLLMMoD:
        return VideoLLMMoD(weights="random", keep_ratio=self.keep_ratio, gate=self.gate)

    def loss(self, run: Run, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        with lent(self.slug, run.module), foveate.attach(run.model, run.method):
            loss = run.model(**batch.inputs, labels=batch.labels, use_cache=False).loss
        return loss, {}

    def rows(self, run: Run, trained: Method) -> dict[str, Method]:
        """Other choices of equally many tokens, and layers skipped at least at that cost."""
        return {
            **super().rows(run, trained),
            "random": replace(trained, weights=None, selector="random"),
            "uniform": replace(trained, weights=None, selector="uniform"),
            "layer skip": replace(trained, weights=None, selector="skip"),
            "early exit": replace(trained, weights=None, selector="skip", placement="deep"),
        }
