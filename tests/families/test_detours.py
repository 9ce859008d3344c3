"""Columns that go around single layers: the laws, on every family."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

import foveate

from . import zoo
from .halves import Half, HalfAround, HalfAt
from .reference import Drop, Reference, every_second, everything, visual_columns
from .running import TOLERANCE, assert_equal, assert_unequal, bare, generate
from .test_laws import everywhere, once, samples
from .test_turns import by_hand, text_of

LAYERS = (0, 1, 3)
METHOD = HalfAround(at=LAYERS)


def drop_of(sample: zoo.Sample, at=LAYERS, kept=None, k=None) -> Drop:
    """What `HalfAround` does to a sample, behind the columns `kept` of a part before it."""
    kept = everything(sample) if kept is None else kept
    around = {}
    for i in at:
        columns = visual_columns(sample)
        if k is None or i >= k:
            columns = columns[torch.isin(columns, kept)]
        rank = torch.arange(len(columns))
        away = columns[(rank + i) % 2 == 1]
        around[i] = everything(sample)[~torch.isin(everything(sample), away)]
    return Drop(kept, k, around=around)


@everywhere
def test_all_running_is_the_bare_model(name, modality, attention):
    model = zoo.model(name, attention)
    inputs = zoo.batch(name, samples(name, modality))
    expected = generate(model, inputs, 4)
    for method in (HalfAround(at=LAYERS, keep=1.0), HalfAround(at=LAYERS, keep=1.0, gate=1.0)):
        with foveate.attach(model, method):
            run = generate(model, inputs, 4)
        assert torch.equal(run.tokens, expected.tokens)
        for i in (0, 1):
            assert_equal(run.row(i), expected.row(i))


@everywhere
def test_going_around_is_the_reference(name, modality, attention):
    model = zoo.model(name, attention)
    alone = []
    for i, sample in enumerate(samples(name, modality)):
        with foveate.attach(model, METHOD):
            run = generate(model, zoo.batch(name, [sample]), 8)
        assert_equal(run.row(0), Reference(model, name, sample).generate(drop_of(sample), 8))
        assert_unequal(run.row(0), bare(name, modality, attention, i).row(0))
        alone.append(run.row(0))
    with foveate.attach(model, METHOD):
        padded = generate(model, zoo.batch(name, samples(name, modality), padding=3), 8)
    for i in (0, 1):
        assert_equal(padded.row(i), alone[i])


@once
@pytest.mark.parametrize("at", [(0,), (1,), (4,)])
def test_any_layer_is_the_reference(name, modality, at):
    model = zoo.model(name)
    sample = zoo.sample(name, modality, 0)
    with foveate.attach(model, HalfAround(at=at)):
        run = generate(model, zoo.batch(name, [sample]), 4)
    assert_equal(run.row(0), Reference(model, name, sample).generate(drop_of(sample, at), 4))


@once
def test_parts_before_and_behind(name, modality):
    model = zoo.model(name)
    sample = zoo.sample(name, modality, 0)
    inputs = zoo.batch(name, [sample])
    reference = Reference(model, name, sample)
    with foveate.attach(model, Half() + METHOD):
        pruned = generate(model, inputs, 4)
        padded = generate(model, zoo.batch(name, samples(name, modality), padding=2), 4)
    assert_equal(pruned.row(0), reference.generate(drop_of(sample, kept=every_second(sample)), 4))
    assert_equal(padded.row(0), pruned.row(0))
    kept = every_second(sample, per_item=False)
    for k in (0, 1, 2):
        with foveate.attach(model, HalfAt(k=k) + METHOD):
            run = generate(model, inputs, 4)
        assert_equal(run.row(0), reference.generate(drop_of(sample, kept=kept, k=k), 4))


@once
def test_the_detours_can_fail(name, modality):
    model = zoo.model(name)
    sample = zoo.sample(name, modality, 0)
    reference = Reference(model, name, sample)
    with foveate.attach(model, HalfAround(at=(1,))):
        run = generate(model, zoo.batch(name, [sample]), 3).row(0)
    other = drop_of(sample, (2,))
    assert_unequal(run, reference.generate(other, 3))
    other.around = {1: other.around[2]}
    assert_unequal(run, reference.generate(other, 3))
    assert_unequal(run, reference.generate(Drop(drop_of(sample, (1,)).around[1], k=1), 3))


@once
def test_a_second_turn(name, modality):
    model = zoo.model(name)
    sample = zoo.sample(name, modality, 0)
    inputs = zoo.batch(name, [sample])
    words = torch.tensor([zoo.words(50, 4)])
    with foveate.attach(model, METHOD):
        first = generate(model, inputs, 4)
        longer = torch.cat([first.output.sequences, words], 1)
        again = {"past_key_values": first.output.past_key_values}
        second = generate(model, text_of(inputs, longer), 3, **again)
    said = [*first.tokens[0].tolist(), *words[0].tolist()]
    expected, reference = [], Reference(model, name, sample)
    for token in second.tokens[0].tolist():
        expected.append(reference.run(drop_of(sample), said)[-1])
        said.append(token)
    assert (second.logits[0] - torch.stack(expected)).abs().max() < TOLERANCE


@once
def test_without_a_cache_and_by_hand(name, modality):
    model = zoo.model(name)
    sample = zoo.sample(name, modality, 0)
    with foveate.attach(model, METHOD):
        cached = generate(model, zoo.pair(name, modality), 4)
        plain = generate(model, zoo.pair(name, modality), 4, use_cache=False)
        tokens, logits = by_hand(model, zoo.batch(name, [sample]), 3)
    for b in (0, 1):
        assert_equal(plain.row(b), cached.row(b))
    expected = Reference(model, name, sample).run(drop_of(sample), tokens)[-4:-1]
    assert (logits - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    "name", ["llava", "qwen2_5_vl", "gemma3", "paligemma", "glm4v", "idefics3"]
)
def test_static_cache(name):
    model = zoo.model(name)
    with foveate.attach(model, METHOD):
        dynamic = generate(model, zoo.pair(name, "image"), 5)
        static = generate(
            model, zoo.pair(name, "image"), 5, cache_implementation="static", disable_compile=True
        )
    for b in (0, 1):
        assert_equal(static.row(b), dynamic.row(b))


@once
def test_labels_and_gradients(name, modality):
    model = zoo.model(name)
    both = samples(name, modality)
    inputs = zoo.batch(name, both)
    labels = inputs["input_ids"].clone()
    labels[(labels == zoo.IMAGE) | (labels == zoo.VIDEO)] = -100
    total, count = 0.0, 0
    for row, sample in enumerate(both):
        labels[row, : -len(sample.ids) + 1] = -100
        logits = Reference(model, name, sample).run(drop_of(sample))
        own = labels[row, -len(sample.ids) :]
        total += cross_entropy(logits[:-1], own[1:], reduction="sum")
        count += int((own[1:] != -100).sum())
    with foveate.attach(model, METHOD):
        out = model(**inputs, labels=labels)
        out.loss.backward()
    assert abs(out.loss - total / count) < TOLERANCE
    grad = model.get_decoder().layers[0].mlp.down_proj.weight.grad
    assert torch.isfinite(grad).all() and grad.abs().max() > 0
    model.zero_grad()
