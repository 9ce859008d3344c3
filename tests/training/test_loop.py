"""The loop on a toy: resumed runs, what is written, what stays as it was."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import foveate
from foveate import method as registry
from foveate.benchmarks.loaded_model import inspect_model
from foveate.errors import FoveateError, UnknownName
from foveate.mini.errors import TrainingError
from foveate.parts import LayersPart
from foveate.trained import TrainedMethod
from foveate.training import recipe_of, train
from foveate.training.batches import IGNORED, draw
from foveate.training.boundary_hook import BoundaryHook
from foveate.training.loop import Trainer
from foveate.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True, repr=False)
class Brightest(TrainedMethod, LayersPart):
    """Keep the columns that a learned direction likes."""

    slug = "brightest"

    def build(self, width, layers):
        return nn.Linear(width, 1)

    def boundaries(self, layers):
        return (1,)

    def at_boundary(self, k, layers, state):
        return self.module(state.hidden, layers=layers)(state.hidden)[..., 0] > 0


@dataclass(frozen=True, kw_only=True)
class BrightestRecipe(Recipe):
    slug = "brightest"

    steps: int = 3
    pictures: int = 2
    questions: int = 2
    checkpoint_every: int = 1

    def loss(self, run, batch):
        seen = {}

        def look(state):
            seen["score"] = run.module(state.hidden)[..., 0][state.visual]

        with foveate.attach(run.model, BoundaryHook(hooks={1: look})), torch.no_grad():
            run.model(**batch.inputs, use_cache=False)
        noise = torch.rand((), generator=run.generator)
        # Outside of no_grad, as a recipe must.
        hidden = torch.ones(run.module.in_features)
        loss = (run.module(hidden) - noise).square().sum()
        return loss, {"seen": float(len(seen["score"]))}


@pytest.fixture(scope="module")
def nano():
    return foveate.mini("nano")


@pytest.fixture(autouse=True)
def _brightest(monkeypatch):
    known = {**registry.registered(), "brightest": Brightest}
    monkeypatch.setattr(registry, "_registry", known)


def test_batches_are_drawn_by_number_and_end_in_answers(nano):
    under = inspect_model(*nano)
    batch, again = (draw(under, 3, 0, pictures=3, questions=2) for _ in range(2))
    assert all(torch.equal(batch.inputs[k], again.inputs[k]) for k in batch.inputs)
    assert not torch.equal(batch.inputs["pixel_values"][0], batch.inputs["pixel_values"][-1])
    told = batch.labels != IGNORED
    assert told[:, -1].all() and int(told.sum(1).max()) == batch.answer_length
    assert (batch.labels[:, -1] == nano[1].tokenizer.eos_token_id).all()
    assert not (batch.prompts["attention_mask"].bool() & told).any()


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(nano, tmp_path):
    recipe = BrightestRecipe()
    whole = Trainer(recipe, *nano, seed=1)
    figures = list(whole.steps(1))
    assert len(figures) == 3 and figures[0]["seen"] > 0
    first = Trainer(recipe, *nano, seed=1)
    first.advance()
    first.save(tmp_path / "checkpoint.pt")
    second = Trainer(recipe, *nano, seed=1)
    second.restore(tmp_path / "checkpoint.pt")
    list(second.steps(1))
    assert torch.equal(whole.run.module.weight, second.run.module.weight)
    with pytest.raises(TrainingError, match="another run"):
        Trainer(recipe, *nano, seed=2).restore(tmp_path / "checkpoint.pt")


def test_what_training_writes_is_what_the_method_uses(nano, tmp_path):
    before = {k: v.clone() for k, v in nano[0].state_dict().items()}
    out = train("brightest", *nano, tmp_path, recipe=BrightestRecipe(), evaluate=2, progress=False)
    assert all(torch.equal(v, before[k]) for k, v in nano[0].state_dict().items())
    method = foveate.from_pretrained(out)
    assert method == Brightest(weights=str(out))
    card = json.loads((out / "card.json").read_text())
    assert set(card["test"]) == {"full model", "trained", "untrained"}
    assert card["test"]["full model"]["tokens"] == 1 and len(card["history"]) == 3
    assert "| trained |" in (out / "README.md").read_text()


def test_what_cannot_be_trained_is_refused(nano, tmp_path):
    with pytest.raises(UnknownName, match="recipe"):
        recipe_of("fastv")
    with pytest.raises(TrainingError, match="steps"):
        train("brightest", *nano, tmp_path, recipe=BrightestRecipe(), steps=0)
    with pytest.raises(FoveateError, match="no learned weights"):
        Recipe.method(type("FastVRecipe", (Recipe,), {"slug": "fastv"})(), None)
