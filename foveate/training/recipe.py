"""`Recipe`: how one method is trained, and the registry of recipes."""

from __future__ import annotations

import copy
import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from foveate.benchmarks.loaded_model import LoadedModel
from foveate.errors import InvalidParameter
from foveate.method import Method, unknown_method
from foveate.parameters import normalise
from foveate.trained import save_parts, trained_class, untrained
from foveate.training.batches import Batch, draw


@dataclass(kw_only=True)
class Run:
    """What a loss may use. base: the base model. module: what is in training.

    step: 0-based; share: of the steps done. generator: of this step's own random numbers.
    """

    base: LoadedModel
    module: nn.Module
    method: Method
    step: int = 0
    share: float = 0.0
    generator: torch.Generator | None = None

    @property
    def model(self) -> Any:
        """The base model."""
        return self.base.model


# What a row of the card measures.
Row = Method | tuple[LoadedModel, Method]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """steps, pictures, questions: length of the run, and what a step shows.

    rate, ramp, floor: top learning rate, share of the steps in which it rises, and what is left of
    it at the end of a cosine. clip: largest norm of the gradient.
    """

    slug: ClassVar[str]
    # What is trained, "parts" beside the base model or the "model" itself, and how it is used.
    trains: ClassVar[str] = "parts"
    usage: ClassVar[str] = "--set weights={folder}"

    steps: int = 400
    pictures: int = 8
    questions: int = 4
    rate: float = 1e-3
    ramp: float = 0.03
    floor: float = 0.05
    clip: float = 1.0
    weight_decay: float = 0.0
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        normalise(self)
        for name in ("steps", "pictures", "questions", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InvalidParameter(
                    f"{name}={getattr(self, name)} trains nothing; use a count of at least 1."
                )

    def method(self, base: LoadedModel) -> Method:
        """The method as it will be saved: with the sizes that suit this base model."""
        return trained_class(self.slug)(weights="random")

    def start(self, base: LoadedModel, method: Method, seed: int) -> nn.Module:
        """What is trained, as it is before the first step. A recipe that trains the base model
        itself gives the model, and says in `finish` where it goes."""
        return untrained(method, seed, **base_facts(base))

    def parameters(self, module: nn.Module) -> Iterable[nn.Parameter]:
        """Parameters that the optimiser may change."""
        return module.parameters()

    def batch(self, run: Run, seed: int) -> Batch:
        """What step `run.step` is about."""
        return draw(run.base, run.step, seed, self.pictures, self.questions)

    def loss(self, run: Run, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, and figures for the history."""
        raise NotImplementedError

    def finish(self, run: Run, out: Path, **made: Any) -> Method:
        """Write what was trained into `out`, in bfloat16, and give the method that uses it."""
        facts = {"name": run.base.name, **base_facts(run.base)}
        save_parts(run.method, copy.deepcopy(run.module).to(torch.bfloat16), out, facts, **made)
        return trained_class(self.slug)(**{**_plain(run.method), "weights": str(out)})

    def summary(self, history: list[dict[str, float]]) -> str:
        """A sentence for the card on how the run went."""
        return ""

    def rows(self, run: Run, trained: Method) -> dict[str, Row]:
        """Methods to measure for the card, by name: what was trained and what it must beat.

        A pair with a base is measured on that one in place of the base model.
        """
        untrained_parts = trained_class(self.slug)(**{**_plain(trained), "weights": "random"})
        return {"trained": trained, "untrained": untrained_parts}


def base_facts(base: LoadedModel) -> dict[str, int]:
    """Facts of the base model that trained parts may depend on."""
    return {
        "width": base.model.config.get_text_config().hidden_size,
        "layers": base.layers,
    }


def recipe_slugs() -> list[str]:
    """Slugs of the methods that have a recipe."""
    import foveate.training.recipes as package

    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def recipe_of(slug: str) -> type[Recipe]:
    """The recipe of a method: the class `Recipe` that `recipes/SLUG.py` registers."""
    if slug not in recipe_slugs():
        raise unknown_method(slug, recipe_slugs(), "training recipe for a method")
    module = importlib.import_module(f"foveate.training.recipes.{slug}")
    return next(
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Recipe) and getattr(c, "slug", None) == slug
    )


def _plain(method: Method) -> dict[str, Any]:
    return {k: v for k, v in method.to_dict().items() if k != "method"}
