"""Batches prefetched by other processes equal those drawn in the training process."""

from concurrent.futures import Future
from dataclasses import replace

import pytest
import torch

from foveate.mini import training_batches
from foveate.mini.model_specs import SMOKE
from foveate.mini.prefetch import Prefetcher
from foveate.mini.trainer import Trainer

TENSORS = ("pixels", "ink", "patch_words", "picture_labels")


class Recorder:
    """Replaces the process pool: records the requests and draws nothing."""

    def __init__(self):
        self.requests = []

    def submit(self, _, request):
        self.requests.append(request)
        return Future()


def test_prefetched_batches_equal_those_drawn_in_the_process():
    run = Trainer(SMOKE, 0)
    prefetcher = Prefetcher(run._request, last=4, processes=1, steps=2)
    try:
        for step in range(4):
            found = prefetcher.batch(step).to("cpu")
            drawn = training_batches.draw(**run._request(step))
            assert found.scenes == drawn.scenes and found.questions == drawn.questions
            for name in TENSORS:
                here, there = getattr(drawn, name), getattr(found, name)
                assert here.dtype == there.dtype and torch.equal(here, there), name
    finally:
        prefetcher.close()
        run.close()


def test_each_step_is_requested_once_with_the_accuracies_of_that_moment():
    run = Trainer(SMOKE, 0)
    prefetcher = Prefetcher(run._request, last=SMOKE.steps, processes=1, steps=3)
    prefetcher.pool = Recorder()
    for step in range(SMOKE.steps):
        prefetcher.queue(step)
        run.accuracy["I1"] = 0.1 * (step + 1)
    asked = prefetcher.pool.requests
    assert [round(r["weights"]["I1"], 1) for r in asked] == [1.1, 1.1, 1.1, 1.0, 0.9, 0.8]
    # Stage and difficulty are those of the step itself.
    assert [r["questions"] for r in asked] == [0, 0, 3, 3, 3, 3]
    assert [r["level"] for r in asked] == [0, 0.5, 1, 1, 1, 1]
    run.close()


@pytest.mark.slow
def test_a_run_that_prefetches_one_step_ends_at_the_same_weights():
    recipe = replace(SMOKE, shards=1)
    plain, other = Trainer(recipe, 0), Trainer(recipe, 0)
    other.prefetcher = Prefetcher(other._request, recipe.steps, processes=1, steps=1)
    for run in (plain, other):
        for _ in run.run():
            pass
        run.close()
    assert plain.accuracy == other.accuracy
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
