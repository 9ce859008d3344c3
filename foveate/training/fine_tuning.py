"""`FineTuningRecipe`: fine-tune the model with a method attached, and a copy without it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from foveate.benchmarks.loaded_model import LoadedModel
from foveate.method import Composed, Method, create
from foveate.training import model_copies
from foveate.training.batches import Batch
from foveate.training.recipe import Recipe, Run


@dataclass(frozen=True, kw_only=True)
class FineTuningRecipe(Recipe):
    """Fine-tunes the LLM and the projector with the method attached.

    A second copy trains on the same batches without the method. The card compares both, which
    separates the effect of the method from that of longer training.
    """

    trains: ClassVar[str] = "model"
    usage: ClassVar[str] = "--model {folder}/tuned --method {slug}"

    steps: int = 200
    rate: float = 2e-4

    def method(self, base: LoadedModel) -> Method:
        return create(self.slug)

    def start(self, base: LoadedModel, method: Method, seed: int) -> nn.Module:
        return model_copies.copies(base, "tuned", "plain")

    def parameters(self, module: nn.Module) -> Iterable[nn.Parameter]:
        return model_copies.without_vision_tower(module)

    def loss(self, run: Run, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        both = {"tuned": run.method, "plain": None}
        return model_copies.losses(run.module, both, batch, self.clip)

    def finish(self, run: Run, out: Path, **made: Any) -> Method:
        model_copies.save(run.module, run.base, out)
        return run.method

    def summary(self, history: list[dict[str, float]]) -> str:
        first, last = history[0], history[-1]
        return (
            f"Training loss with the method: {first['tuned']:.3f} at the start, "
            f"{last['tuned']:.3f} at the end. Without it: {first['plain']:.3f} and "
            f"{last['plain']:.3f}."
        )

    def rows(self, run: Run, trained: Method) -> dict[str, Any]:
        tuned, plain = (
            replace(run.base, model=run.module[name].eval(), name=name)  # type: ignore[index]
            for name in ("tuned", "plain")
        )
        return {
            f"not fine-tuned, {trained!r}": trained,
            f"fine-tuned with the method, {trained!r}": (tuned, trained),
            f"fine-tuned without the method, {trained!r}": (plain, trained),
            "fine-tuned without the method": (plain, Composed()),
        }
