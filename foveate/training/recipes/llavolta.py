"""LLaVolta: fine-tuning in stages, from strong pooling of visual tokens to none.

A second copy trains on the same batches without pooling, so the card shows savings and cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

import foveate
from foveate.benchmarks.loaded_model import LoadedModel
from foveate.method import Method
from foveate.methods.layers.llavolta import LLaVolta, setting_at
from foveate.training import model_copies
from foveate.training.batches import Batch
from foveate.training.recipe import Recipe, Run


@dataclass(frozen=True, kw_only=True)
class LLaVoltaRecipe(Recipe):
    """Stages of equal length.

    Attributes:
        strides: pooling window of each stage.
        layers: layer where pooling starts in each stage, as a fraction of the depth. The paper's
            are 2, 2, 16 and 0 of 32.
    """

    slug = "llavolta"
    trains: ClassVar[str] = "model"
    usage: ClassVar[str] = "--model {folder}/staged"

    steps: int = 160
    rate: float = 2e-4
    strides: tuple[int, ...] = (8, 2, 2, 1)
    layers: tuple[float, ...] = (1 / 16, 1 / 16, 1 / 2, 0.0)

    def method(self, base: LoadedModel) -> Method:
        return LLaVolta(stride=self.strides[0], layer=self._layers(base)[0])

    def start(self, base: LoadedModel, method: Method, seed: int) -> nn.Module:
        return model_copies.copies(base, "staged", "plain")

    def parameters(self, module: nn.Module) -> Iterable[nn.Parameter]:
        return model_copies.without_vision_tower(module)

    def loss(self, run: Run, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        pivots = [self.steps * i // len(self.strides) - 1 for i in range(1, len(self.strides))]
        stride, layer = setting_at(run.step, self.strides, self._layers(run.base), pivots)
        pooled = LLaVolta(stride=stride, layer=layer) if stride > 1 else None
        both = {"staged": pooled, "plain": None}
        loss, figures = model_copies.losses(run.module, both, batch, self.clip)
        return loss, {"stride": float(stride), **figures}

    def finish(self, run: Run, out: Path, **made: Any) -> Method:
        model_copies.save(run.module, run.base, out)
        return run.method

    def summary(self, history: list[dict[str, float]]) -> str:
        # All records but the last cover equally many steps.
        took, whole = (sum(r[f"{n}_seconds"] for r in history) for n in ("staged", "plain"))
        last = [r for r in history if r["stride"] == self.strides[-1]]
        loss, other = (sum(r[n] for r in last) / len(last) for n in ("staged", "plain"))
        return (
            f"Pooling saves {1 - took / whole:.0%} of the training time (process time). Mean loss "
            f"in the last stage, which has no pooling: {loss:.3f}. Mean loss there without pooling "
            f"in any stage: {other:.3f}."
        )

    def rows(self, run: Run, trained: Method) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        labels = {"staged": "trained with staged pooling", "plain": "trained without pooling"}
        for name, model in run.module.items():  # type: ignore[operator]
            base = replace(run.base, model=model.eval(), name=name)
            rows[labels[name]] = base, foveate.method.Composed()
            rows[f"{labels[name]}, {trained!r}"] = base, trained
        return rows

    def _layers(self, base: LoadedModel) -> tuple[int, ...]:
        # Layer 0 has no text information yet.
        return tuple(max(1, round(share * base.layers)) for share in self.layers)
