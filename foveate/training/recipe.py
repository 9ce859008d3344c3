"""`Recipe`: how a method is trained, and the registry of recipes."""

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
    """The state that a loss may use.

    Attributes:
        base: the base model with its processor and facts.
        module: the module in training.
        method: the method that is trained.
        step: current step, 0-based.
        share: fraction of the steps that are done, in 0..1.
        generator: random numbers of this step.
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


# What a row of the card evaluates: a method, on the base model or on another one.
Row = Method | tuple[LoadedModel, Method]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyper-parameters of a training run, and what a subclass defines.

    Attributes:
        steps: number of steps.
        pictures: images per step.
        questions: questions per image.
        rate: top learning rate.
        ramp: fraction of the steps in which the learning rate rises.
        floor: final learning rate of the cosine schedule as a ratio of the top one.
        clip: largest gradient norm.
        weight_decay: of AdamW.
        checkpoint_every: steps between checkpoints.
    """

    slug: ClassVar[str]
    # "parts": learned modules of the method; "model": the base model itself.
    trains: ClassVar[str] = "parts"
    # Options of `foveate ask` that use the result.
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
                    f"{name}={getattr(self, name)} is too small: use at least 1."
                )

    def method(self, base: LoadedModel) -> Method:
        """The method with module sizes that fit this base model."""
        return trained_class(self.slug)(weights="random")

    def start(self, base: LoadedModel, method: Method, seed: int) -> nn.Module:
        """The module to train, with initial weights.

        A recipe that fine-tunes the base model returns a copy of it and writes it in `finish`.
        """
        return untrained(method, seed, **base_facts(base))

    def parameters(self, module: nn.Module) -> Iterable[nn.Parameter]:
        """The parameters to train."""
        return module.parameters()

    def batch(self, run: Run, seed: int) -> Batch:
        """The batch of step `run.step`."""
        return draw(run.base, run.step, seed, self.pictures, self.questions)

    def loss(self, run: Run, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, and figures for the training history."""
        raise NotImplementedError

    def finish(self, run: Run, out: Path, **made: Any) -> Method:
        """Write the trained module to `out` in bfloat16; returns the method that uses it."""
        facts = {"name": run.base.name, **base_facts(run.base)}
        save_parts(run.method, copy.deepcopy(run.module).to(torch.bfloat16), out, facts, **made)
        return trained_class(self.slug)(**{**_plain(run.method), "weights": str(out)})

    def summary(self, history: list[dict[str, float]]) -> str:
        """A sentence for the card about the training history."""
        return ""

    def rows(self, run: Run, trained: Method) -> dict[str, Row]:
        """Methods to evaluate for the card, by label: the trained method and its baselines.

        A pair (model, method) is evaluated on that model instead of the base model.
        """
        untrained_parts = trained_class(self.slug)(**{**_plain(trained), "weights": "random"})
        return {"trained": trained, "untrained": untrained_parts}


def base_facts(base: LoadedModel) -> dict[str, int]:
    """Sizes of the base model that learned modules depend on."""
    return {
        "width": base.model.config.get_text_config().hidden_size,
        "layers": base.layers,
    }


def recipe_slugs() -> list[str]:
    """Slugs of the methods that have a recipe."""
    import foveate.training.recipes as package

    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def recipe_of(slug: str) -> type[Recipe]:
    """The recipe class of a method, from `recipes/SLUG.py`."""
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
