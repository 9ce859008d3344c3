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
    """Language model and projector are trained on with the method attached.

    The same steps run beside it without, so that the card tells what is due to more training.
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
            f"The loss with the method goes from {first['tuned']:.3f} to {last['tuned']:.3f}, "
            f"without it from {first['plain']:.3f} to {last['plain']:.3f}."
        )

    def rows(self, run: Run, trained: Method) -> dict[str, Any]:
        tuned, plain = (
            replace(run.base, model=run.module[name].eval(), name=name)  # type: ignore[index]
            for name in ("tuned", "plain")
        )
        return {
            f"as it was, {trained!r}": trained,
            f"tuned, {trained!r}": (tuned, trained),
            f"trained on without, {trained!r}": (plain, trained),
            "trained on without": (plain, Composed()),
        }
