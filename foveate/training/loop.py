"""The training loop: runs a recipe on a base model."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveate.benchmarks.loaded_model import inspect_model
from foveate.mini import checkpoint
from foveate.mini.errors import TrainingError
from foveate.mini.progress import bar
from foveate.training.card import write_card
from foveate.training.recipe import Recipe, Run, recipe_of


class Trainer:
    """The state of a run: trained module, optimiser, step and history."""

    def __init__(self, recipe: Recipe, model: Any, processor: Any, seed: int):
        self.recipe, self.seed = recipe, seed
        model.eval().requires_grad_(False)
        base = inspect_model(model, processor)
        method = recipe.method(base)
        module = recipe.start(base, method, seed).to(model.device).train()
        self.run = Run(base=base, module=module, method=method)
        self.parameters = [p.requires_grad_() for p in recipe.parameters(module)]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=recipe.rate, weight_decay=recipe.weight_decay
        )
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0

    def _rate(self) -> float:
        r, step = self.recipe, self.run.step
        rise = min(1.0, (step + 1) / max(1.0, r.ramp * r.steps))
        fall = r.floor + (1 - r.floor) * (1 + math.cos(math.pi * step / r.steps)) / 2
        return r.rate * rise * fall

    def advance(self) -> dict[str, float]:
        """One step; returns the loss and the recipe's figures."""
        run = self.run
        run.share = run.step / self.recipe.steps
        # One generator per step: a resumed run draws the same numbers as an uninterrupted one.
        run.generator = torch.Generator().manual_seed(self.seed * 1_000_003 + run.step)
        loss, figures = self.recipe.loss(run, self.recipe.batch(run, self.seed))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        self.optimiser.step()
        run.step += 1
        return {"loss": loss.item(), **figures}

    def steps(self, stride: int) -> Iterator[dict[str, float]]:
        """Train to the end; the history gets the mean of every `stride` steps."""
        sums: dict[str, list[float]] = {}
        while self.run.step < self.recipe.steps:
            began = time.perf_counter()
            figures = self.advance()
            self.seconds += time.perf_counter() - began
            for name, value in figures.items():
                sums.setdefault(name, []).append(value)
            if self.run.step % stride == 0 or self.run.step == self.recipe.steps:
                means = {name: round(sum(v) / len(v), 5) for name, v in sums.items()}
                record = {"step": self.run.step, "seconds": round(self.seconds, 1), **means}
                self.history.append(record)
                sums = {}
            yield figures

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must have been made with to continue this run."""
        return {
            "recipe": asdict(self.recipe),
            "base": self.run.base.weights,
            "seed": self.seed,
        }

    def save(self, path: Path) -> None:
        """Write everything that the rest of the run depends on."""
        state = {
            "module": self.run.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.run.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        checkpoint.save(path, self._identity(), state)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of the same recipe, base model and seed."""
        state = checkpoint.load(path, self._identity())
        self.run.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.run.step, self.seconds = state["step"], state["seconds"]
        self.history = state["history"]


def train(
    slug: str,
    model: Any,
    processor: Any,
    out: str | Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    resume: bool = True,
    progress: bool = True,
    evaluate: int = 200,
    recipe: Recipe | None = None,
    command: str = "",
) -> Path:
    """Train the learned modules of a method, or fine-tune a copy of the model for it.

    Args:
        slug: of the method; it must have a recipe.
        model: the base model; its own weights do not change.
        processor: of the model.
        out: folder to write.
        seed: of the initial weights and the training data.
        steps: number of steps; None is the recipe's.
        resume: continue from `out/checkpoint.pt` if it exists.
        progress: show a progress bar.
        evaluate: test items per task for the card; 0 for none.
        recipe: hyper-parameters; None is the recipe's defaults.
        command: the command line to print in the card.
    """
    recipe = recipe or recipe_of(slug)()
    if steps is not None:
        if steps < 1:
            raise TrainingError(f"steps={steps} is too small: use at least 1.")
        recipe = replace(recipe, steps=steps)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(recipe, model, processor, seed)
    saved = out / "checkpoint.pt"
    if resume and saved.exists():
        trainer.restore(saved)
    with bar(f"training {slug}", recipe.steps, trainer.run.step, progress) as tick:
        for figures in trainer.steps(max(1, recipe.steps // 40)):
            done = trainer.run.step
            tick(done, " ".join(f"{k} {v:.3f}" for k, v in figures.items()))
            if done % recipe.checkpoint_every == 0 or done == recipe.steps:
                trainer.save(saved)
    trainer.run.module.eval()
    facts = {"seed": seed, "recipe": asdict(recipe), "seconds": round(trainer.seconds)}
    made = recipe.finish(trainer.run, out, **facts, command=command)
    rows = recipe.rows(trainer.run, made) if evaluate else {}
    facts |= {"slug": slug, "method": repr(recipe.method(trainer.run.base)), "command": command}
    facts |= {"trains": recipe.trains, "summary": recipe.summary(trainer.history)}
    write_card(out, trainer.run.base, facts, trainer.history, rows, evaluate, progress)
    return out
