"""Evaluation: counts what it says, works through plain calls, treats a batch as its members."""

import pytest
import torch

import foveate
from foveate.benchmarks.controls import Oracle
from foveate.benchmarks.evidence import EvidenceBoxes
from foveate.errors import FoveateError
from foveate.mini import world
from foveate.mini.architecture import nano_config, new_model, new_processor
from foveate.mini.evaluate import constant_answer, constant_colour, evaluate


@pytest.fixture(scope="module")
def untrained():
    config = nano_config()
    return new_model(config, 0).eval(), new_processor(config)


@pytest.fixture(scope="module")
def mixed():
    return [item for task in world.TASKS for item in world.items(task, "val", 4)]


@pytest.mark.parametrize("mode", ["generate", "likelihood"])
def test_batches_answer_as_single_items_do(untrained, mixed, mode):
    whole = evaluate(*untrained, mixed, batch_size=len(mixed), mode=mode)
    single = evaluate(*untrained, mixed, batch_size=1, mode=mode)
    assert [r.predicted for r in whole.results] == [r.predicted for r in single.results]
    assert whole.count == dict.fromkeys(world.TASKS, 4)


def test_likelihood_of_long_candidates_agrees_with_short_ones(untrained, mixed, monkeypatch):
    from foveate.mini import evaluate as module

    short = evaluate(*untrained, mixed[:4], mode="likelihood")
    monkeypatch.setattr(module, "_length", lambda processor, words: 2)
    long = evaluate(*untrained, mixed[:4], mode="likelihood")
    # Only the end-of-text term can differ; an untrained model gives it about the same everywhere.
    assert len(long.results) == len(short.results)
    assert all(r.predicted in i.candidates for r, i in zip(long.results, mixed, strict=False))


@pytest.mark.parametrize("length", [1, 2])
def test_controls_know_the_item_of_every_row(untrained, mixed, monkeypatch, length):
    from foveate.mini import evaluate as module

    monkeypatch.setattr(module, "_length", lambda processor, words: length)
    rows = []
    light = EvidenceBoxes()

    def before(items):
        rows.append(len(items))
        light.set_items(items)

    some = mixed[:3]
    with foveate.attach(untrained[0], Oracle(keep=0.25, evidence=light)):
        evaluate(*untrained, some, mode="likelihood", before=before)
    assert rows == ([3] if length == 1 else [len(item.candidates) for item in some])


def test_constant_answer_counts_by_kind_of_question():
    items = world.items("I1", "test", 56)
    colours = [i.answer for i in items if i.meta["kind"] == "colour"]
    shapes = [i.answer for i in items if i.meta["kind"] == "shape"]
    best = max(map(colours.count, colours)) + max(map(shapes.count, shapes))
    assert constant_answer(items) == {"I1": best / 56}


def test_a_constant_colour_image_has_the_same_size():
    image = world.item("I1", "test", 0).image()
    plain = constant_colour(image)
    assert plain.size == image.size and len(plain.getcolors()) == 1


def test_evaluation_restores_the_training_mode(untrained, mixed):
    model, processor = untrained
    model.train()
    evaluate(model, processor, mixed[:1])
    assert model.training
    model.eval()


def test_evaluation_passes_through_what_is_wrapped_around_generate(untrained, mixed):
    model, processor = untrained
    calls = []
    original = model.generate

    def counting(**inputs):
        calls.append(inputs["pixel_values"].shape)
        return original(**inputs)

    model.generate = counting
    try:
        evaluate(model, processor, mixed[:5], batch_size=2)
    finally:
        del model.generate
    assert calls == [torch.Size((n, 3, 64, 64)) for n in (2, 2, 1)]


def test_wrong_arguments_are_refused(untrained, mixed):
    for wrong in ({"mode": "guess"}, {"batch_size": 0}):
        with pytest.raises(FoveateError):
            evaluate(*untrained, mixed[:1], **wrong)
