"""The recipe: packing equals asking alone, runs repeat, interrupted runs end where others end."""

import json

import pytest
import torch

from foveate.errors import FoveateError
from foveate.mini import load, trainer, training_batches
from foveate.mini.evaluate import prompt
from foveate.mini.growth import grow
from foveate.mini.model_specs import IMAGE, NANO, SMOKE
from foveate.mini.packing import PREFIX, pack
from foveate.mini.trainer import Trainer
from foveate.mini.weights_loading import load_folder
from foveate.mini.world import TASKS
from foveate.mini.world.vocabulary import ids


def _draw(seed=0, questions=4, level=1.0):
    return training_batches.draw(
        first=0,
        batch=3,
        canvas=Trainer(SMOKE, 0).canvas,
        seed=seed,
        weights=dict.fromkeys(TASKS, 1.0),
        level=level,
        questions=questions,
    )


def test_batches_repeat_and_follow_the_seed():
    first, second, other = _draw(), _draw(), _draw(seed=1)
    assert torch.equal(first.pixels, second.pixels)
    assert first.questions == second.questions
    assert not torch.equal(first.pixels, other.pixels)


def test_packed_questions_get_the_logits_of_lone_questions():
    run = Trainer(SMOKE, 0)
    model, processor = run.model.eval(), run.processor
    batch = _draw()
    with torch.no_grad():
        tokens = run.encode(batch.normalised()).tokens
        packed = pack(batch.questions, processor.tokenizer, tokens.shape[1])
        embed = model.get_input_embeddings()
        front = embed(torch.tensor([ids()[word] for word in PREFIX])).expand(3, -1, -1)
        hidden = model.model.language_model(
            inputs_embeds=torch.cat([front, tokens, embed(packed.text)], 1),
            attention_mask=packed.mask,
            position_ids=packed.positions,
        ).last_hidden_state[:, -packed.text.shape[1] :]
        logits = model.lm_head(hidden)
        number = 0
        for b, row in enumerate(batch.questions):
            for question in row:
                inputs = processor(
                    images=batch.pixels[b].numpy(),
                    text=prompt(processor, question.text),
                    return_tensors="pt",
                )
                alone = model(**inputs).logits[0, -1]
                at = int(torch.nonzero(packed.answer[b] == number)[0, 0])
                torch.testing.assert_close(logits[b, at], alone, atol=1e-4, rtol=1e-4)
                reply = processor.tokenizer(question.answer).input_ids
                told = packed.targets[b][packed.answer[b] == number].tolist()
                assert told == [*reply, ids()["<eos>"]]
                number += 1


def test_smoke_run_repeats_and_resumes_to_the_same_weights(tmp_path):
    whole = Trainer(SMOKE, 3, threads=2)
    for _ in whole.run():
        pass
    half = Trainer(SMOKE, 3)
    for _ in range(SMOKE.warm_up_steps + 1):
        half.advance()
    half.save(tmp_path / "checkpoint.pt")
    later = Trainer(SMOKE, 3)
    later.restore(tmp_path / "checkpoint.pt")
    for _ in later.run():
        pass
    assert later.step == whole.step == SMOKE.steps
    assert later.accuracy == whole.accuracy
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, later.model.state_dict()[name]), name


def test_checkpoints_of_other_runs_are_not_continued(tmp_path):
    run = Trainer(SMOKE, 0)
    run.save(tmp_path / "checkpoint.pt")
    with pytest.raises(FoveateError):
        Trainer(SMOKE, 1).restore(tmp_path / "checkpoint.pt")
    with pytest.raises(FoveateError):
        Trainer(NANO.recipe, 0).restore(tmp_path / "checkpoint.pt")


def test_training_moves_every_part_and_leaves_global_state_alone():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    run = Trainer(SMOKE, 0)
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    for _ in run.run():
        pass
    assert torch.equal(state, torch.get_rng_state()) and threads == torch.get_num_threads()
    still = [k for k, v in run.model.state_dict().items() if torch.equal(v, before[k])]
    assert not still


def test_train_writes_a_loadable_folder(tmp_path):
    out = trainer.train(tmp_path, recipe=SMOKE, threads=1, evaluate=2, progress=False)
    model, processor = load_folder(out)
    assert model.dtype == torch.float32 and not model.training
    card = json.loads((out / "card.json").read_text())
    assert set(card["test"]) == set(TASKS) and card["recipe"]["warm_up_steps"] == 2
    assert "| I1 attribute |" in (out / "README.md").read_text()
    assert (out / "model.safetensors").stat().st_size < 5e6
    history = card["history"]
    again = trainer.train(tmp_path, recipe=SMOKE, threads=1, evaluate=0, progress=False)
    assert json.loads((again / "card.json").read_text())["history"] == history


def test_shortened_recipe_keeps_its_proportions():
    recipe = NANO.recipe.shortened(60)
    assert recipe.steps == 60
    assert recipe.warm_up_steps == round(60 * NANO.recipe.warm_up_steps / NANO.recipe.steps)
    with pytest.raises(FoveateError):
        trainer.train("unused", steps=1)


def test_a_larger_model_begins_as_the_smaller_one():
    """On the grid of the smaller one, where no position is stretched, nothing is changed."""
    small, processor = load("nano")
    deeper = IMAGE.config()
    deeper.vision_config.image_size = small.config.vision_config.image_size
    grown = grow(small, deeper, seed=5).eval()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    text = prompt(processor, "what is written?")
    inputs = processor(images=pixels[0].numpy().clip(0, 1), text=text, return_tensors="pt")
    inputs = {**inputs, "pixel_values": pixels[:1]}
    with torch.no_grad():
        torch.testing.assert_close(grown(**inputs).logits, small(**inputs).logits)
        own = (m.model.vision_tower(pixels).pooler_output for m in (grown, small))
        torch.testing.assert_close(*own)


def test_the_image_recipe_learns_every_part_on_its_own_grid():
    run = Trainer(SMOKE, 0, spec=IMAGE)
    assert run.canvas.grid == 14 and set(run.accuracy) == set(IMAGE.tasks) > set(NANO.tasks)
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    for _ in run.run():
        pass
    still = [k for k, v in run.model.state_dict().items() if torch.equal(v, before[k])]
    assert not still
