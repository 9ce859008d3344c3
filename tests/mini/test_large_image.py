"""The largest image model: what it learns, and that it can be trained."""

import json
from dataclasses import replace

import pytest
import torch

from foveate.mini import trainer, training_batches
from foveate.mini.model_specs import LARGE_IMAGE, SMOKE
from foveate.mini.trainer import Trainer
from foveate.mini.world import tasks
from foveate.mini.world.scene import Canvas

WHOLE = replace(SMOKE, shards=1)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_every_task_draws_and_asks_on_the_largest_canvas(level):
    assert LARGE_IMAGE.tasks == tasks(192, medium="image") and len(LARGE_IMAGE.tasks) == 14
    for name in LARGE_IMAGE.tasks:
        batch = training_batches.draw(
            first=0,
            batch=1,
            canvas=Canvas(192, 8),
            seed=0,
            weights={name: 1.0},
            level=level,
            questions=2,
            tasks=LARGE_IMAGE.tasks,
        )
        assert batch.pixels.shape == (1, 192, 192, 3) and batch.questions[0][0].task == name


@pytest.mark.slow
def test_the_largest_model_is_trained_and_fits(tmp_path):
    out = trainer.train(
        tmp_path, recipe=WHOLE, spec=LARGE_IMAGE, device="cpu", evaluate=0, progress=False
    )
    facts = json.loads((out / "card.json").read_text())
    assert (facts["size"], facts["tokens"], facts["device"]) == (192, 576, "cpu")
    assert (out / "model.safetensors").stat().st_size < 16_000_000
    run = Trainer(WHOLE, 0, spec=LARGE_IMAGE)
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    run.restore(out / "checkpoint.pt")
    still = [k for k, v in run.model.state_dict().items() if torch.equal(v, before[k])]
    assert run.step == WHOLE.steps and not still
    run.close()
