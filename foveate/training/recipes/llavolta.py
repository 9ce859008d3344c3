"""LLaVolta: the model itself is trained on, with visual tokens pooled from heavily to not at all.

The same steps run beside it without pooling, so that the card shows what pooling saves and costs.
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
    """strides: windows of the stages, which are equally long. layers: where pooling starts, as
    shares of the decoder; the paper's are 2, 2, 16 and 0 of 32."""

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
        # Records stand for equally many steps, but for the last one.
        took, whole = (sum(r[f"{n}_seconds"] for r in history) for n in ("staged", "plain"))
        last = [r for r in history if r["stride"] == self.strides[-1]]
        loss, other = (sum(r[n] for r in last) / len(last) for n in ("staged", "plain"))
        return (
            f"Pooling saves {1 - took / whole:.0%} of the processor time of all steps. In the last "
            f"stage, which doesn't pool, the mean loss is {loss:.3f} against {other:.3f} without "
            "pooling before."
        )

    def rows(self, run: Run, trained: Method) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for name, model in run.module.items():  # type: ignore[operator]
            base = replace(run.base, model=model.eval(), name=name)
            rows[name] = base, foveate.method.Composed()
            rows[f"{name}, {trained!r}"] = base, trained
        return rows

    def _layers(self, base: LoadedModel) -> tuple[int, ...]:
        # Before layer 1 nothing was seen of the text.
        return tuple(max(1, round(share * base.layers)) for share in self.layers)
