"""Every recipe of trained parts runs, moves them, and writes what its method finds again."""

from __future__ import annotations

import json

import pytest
import torch

import foveate
from foveate.method import registered
from foveate.trained import TrainedMethod
from foveate.training import recipe_of, recipe_slugs, train
from foveate.training.loop import Trainer
from foveate.training.recipe import Recipe

TRAINED = [
    slug
    for slug, cls in registered().items()
    # Other tests register methods of their own.
    if issubclass(cls, TrainedMethod) and cls.__module__.startswith("foveate.")
]


@pytest.fixture(scope="module")
def nano():
    return foveate.mini("nano")


def small(slug: str) -> Recipe:
    return recipe_of(slug)(steps=2, pictures=2, questions=1)


def test_every_trained_method_has_a_recipe():
    assert set(TRAINED) <= set(recipe_slugs())


@pytest.mark.parametrize("slug", TRAINED)
def test_a_recipe_trains_what_it_says(nano, tmp_path, slug):
    recipe = small(slug)
    trainer = Trainer(recipe, *nano, seed=0)
    before = {k: v.clone() for k, v in trainer.run.module.state_dict().items()}
    base = {k: v.clone() for k, v in nano[0].state_dict().items()}
    figures = list(trainer.steps(1))
    assert all(torch.tensor(list(f.values())).isfinite().all() for f in figures)
    after = trainer.run.module.state_dict()
    assert any(not torch.equal(after[k], before[k]) for k in after)
    assert all(torch.equal(v, base[k]) for k, v in nano[0].state_dict().items())
    assert all(p.grad is None for p in nano[0].parameters())


@pytest.mark.slow
@pytest.mark.parametrize("slug", TRAINED)
def test_a_trained_set_is_measured_and_found_again(nano, tmp_path, slug):
    out = train(slug, *nano, tmp_path, recipe=small(slug), evaluate=2, progress=False)
    assert foveate.from_pretrained(out).slug == slug
    card = json.loads((out / "card.json").read_text())
    assert card["test"]["full model"]["tokens"] == 1 and len(card["test"]) > 3
    assert all(0 < row["tokens"] <= 1 for row in card["test"].values())
