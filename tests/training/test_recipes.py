"""Recipes from end to end, a few steps each."""

from __future__ import annotations

import json

import pytest
import torch

import foveate
from foveate.benchmarks.loaded_model import inspect_model
from foveate.mini.weights_loading import load_folder
from foveate.training import recipe_of, train
from foveate.training.batches import draw
from foveate.training.boundary_hook import BoundaryHook
from foveate.training.loop import Trainer
from foveate.training.recipes.explain_compress import ExplainCompressRecipe
from foveate.training.recipes.llavolta import LLaVoltaRecipe
from foveate.training.recipes.videollm_mod import VideoLLMMoDRecipe, attended

BRIEF = {"pictures": 1, "questions": 2}


@pytest.fixture(scope="module")
def nano():
    return foveate.mini("nano")


def test_pooling_starts_strong_and_ends(nano):
    recipe = LLaVoltaRecipe(steps=4, **BRIEF)
    trainer = Trainer(recipe, *nano, seed=0)
    assert recipe._layers(trainer.run.base) == (1, 1, 3, 1)
    figures = list(trainer.steps(1))
    assert [f["stride"] for f in figures] == [8, 2, 2, 1]
    towers = [p for n, p in trainer.run.module.named_parameters() if "vision_tower" in n]
    assert towers and not any(p.requires_grad for p in towers)


def test_without_pooling_both_copies_train_alike(nano):
    trainer = Trainer(LLaVoltaRecipe(steps=2, strides=(1, 1), **BRIEF), *nano, seed=0)
    for figures in trainer.steps(1):
        assert figures["staged"] == figures["plain"] == figures["loss"]
    staged, plain = (trainer.run.module[n].state_dict() for n in ("staged", "plain"))
    before = nano[0].state_dict()
    assert all(torch.equal(staged[name], plain[name]) for name in staged)
    assert any(not torch.equal(staged[name], before[name]) for name in staged)


@pytest.mark.slow
def test_llavolta_writes_both_models(nano, tmp_path):
    out = train(
        "llavolta", *nano, tmp_path, recipe=LLaVoltaRecipe(steps=2, **BRIEF), evaluate=2,
        progress=False,
    )  # fmt: skip
    card = json.loads((out / "card.json").read_text())
    assert len(card["test"]) == 5 and {"full model", "trained without pooling"} <= set(card["test"])
    page = (out / "README.md").read_text()
    assert "fine-tuned with `llavolta`" in page and "Pooling saves" in page
    assert inspect_model(*load_folder(out / "staged")).layers == 6


@pytest.mark.parametrize("slug", ["vista_llama", "tc_llava"])
def test_the_model_is_fine_tuned_with_and_without_the_method(nano, slug):
    trainer = Trainer(recipe_of(slug)(steps=2, **BRIEF), *nano, seed=0)
    for figures in trainer.steps(1):
        assert figures["loss"] == figures["tuned"] != figures["plain"]
    tuned, plain = (trainer.run.module[n].state_dict() for n in ("tuned", "plain"))
    assert any(not torch.equal(tuned[name], plain[name]) for name in tuned)
    assert any(not torch.equal(plain[name], value) for name, value in nano[0].state_dict().items())


@pytest.mark.slow
def test_a_fine_tuned_model_works_with_its_method(nano, tmp_path):
    recipe = recipe_of("tc_llava")(steps=2, **BRIEF)
    out = train("tc_llava", *nano, tmp_path, recipe=recipe, evaluate=2, progress=False)
    card = json.loads((out / "card.json").read_text())
    assert len(card["test"]) == 5 and "fine-tuned without the method" in card["test"]
    assert "Training loss with the method:" in (out / "README.md").read_text()
    assert inspect_model(*load_folder(out / "tuned")).layers == 6


def test_relevance_is_learned_from_the_prompt_alone(nano):
    trainer = Trainer(ExplainCompressRecipe(steps=2, **BRIEF), *nano, seed=0)
    for figures in trainer.steps(1):
        assert 0 < figures["loss"] and 0 <= figures.get("overlap", 0.5) <= 1


@pytest.mark.slow
def test_the_relevance_card_has_its_baselines(nano, tmp_path):
    recipe = ExplainCompressRecipe(steps=2, **BRIEF)
    out = train("explain_compress", *nano, tmp_path, recipe=recipe, evaluate=2, progress=False)
    card = json.loads((out / "card.json").read_text())
    assert len(card["test"]) == 9
    assert card["test"]["oracle relevance at 50%"]["tokens"] == 0.5
    method = foveate.from_pretrained(out)
    assert method.keep == 0.5 and (out / "parts.safetensors").stat().st_size < 500_000


def test_routers_start_near_one_and_follow_attention(nano):
    recipe = VideoLLMMoDRecipe(warm=4, spread=0.2)
    trainer = Trainer(recipe, *nano, seed=0)
    seen = {}

    def look(state):
        visual = state.visual
        gate = trainer.run.module["3"](state.hidden)[..., 0][visual]
        seen["gate"], seen["wanted"] = gate, attended(state)[visual]

    batch = draw(trainer.run.base, 50, 0, 4, 2)
    with foveate.attach(nano[0], BoundaryHook(hooks={3: look})), torch.no_grad():
        nano[0](**batch.prompts, use_cache=False)
    assert seen["gate"].mean() == pytest.approx(1, abs=0.1)
    assert torch.corrcoef(torch.stack([seen["gate"], seen["wanted"]]))[0, 1] > 0.5
