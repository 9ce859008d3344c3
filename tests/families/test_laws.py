"""The laws that hold on every family, for both attention kernels of plain PyTorch.

Keeping all is the bare model; dropping is what a decoder computes on the columns that are left; a
batch is its samples; padding is nothing; detaching leaves no trace.
"""

from __future__ import annotations

import pytest
import torch

import foveate
from foveate.families.base import family_of, resolve_path

from . import zoo
from .halves import Half, HalfAt
from .reference import Drop, Reference, every_second
from .running import assert_equal, assert_unequal, bare, generate

matrix = [
    pytest.param(name, modality, attention, id=f"{name}-{modality}-{attention}")
    for name, modality in zoo.CASES
    for attention in ("sdpa", "eager")
]
everywhere = pytest.mark.parametrize(("name", "modality", "attention"), matrix)
once = pytest.mark.parametrize(("name", "modality"), zoo.CASES)


def samples(name: str, modality: str) -> list[zoo.Sample]:
    return [zoo.sample(name, modality, i) for i in (0, 1)]


@everywhere
def test_keeping_all_is_the_bare_model(name, modality, attention):
    expected = [bare(name, modality, attention, i).row(0) for i in (0, 1)]
    model = zoo.model(name, attention)
    both = zoo.batch(name, samples(name, modality))
    for method in (Half(keep=1.0), HalfAt(keep=1.0), Half(keep=1.0) + HalfAt(keep=1.0)):
        with foveate.attach(model, method):
            run = generate(model, both)
        for i in (0, 1):
            assert_equal(run.row(i), expected[i])


@everywhere
@pytest.mark.parametrize("positions", ["original", "packed"])
def test_half_is_the_reference(name, modality, attention, positions):
    model = zoo.model(name, attention)
    alone = []
    for i, sample in enumerate(samples(name, modality)):
        with foveate.attach(model, Half(positions=positions)):
            run = generate(model, zoo.batch(name, [sample]))
        drop = Drop(every_second(sample), packed=positions == "packed")
        assert_equal(run.row(0), Reference(model, name, sample).generate(drop, 12))
        assert_unequal(run.row(0), bare(name, modality, attention, i).row(0))
        alone.append(run.row(0))
    with foveate.attach(model, Half(positions=positions)):
        padded = generate(model, zoo.batch(name, samples(name, modality), padding=3))
    for i in (0, 1):
        assert_equal(padded.row(i), alone[i])


@everywhere
@pytest.mark.parametrize("positions", ["original", "packed"])
def test_half_at_a_boundary_is_the_reference(name, modality, attention, positions):
    model = zoo.model(name, attention)
    alone = []
    for i, sample in enumerate(samples(name, modality)):
        with foveate.attach(model, HalfAt(k=2, positions=positions)):
            run = generate(model, zoo.batch(name, [sample]))
        drop = Drop(every_second(sample, per_item=False), 2, packed=positions == "packed")
        assert_equal(run.row(0), Reference(model, name, sample).generate(drop, 12))
        assert_unequal(run.row(0), bare(name, modality, attention, i).row(0))
        alone.append(run.row(0))
    with foveate.attach(model, HalfAt(k=2, positions=positions)):
        padded = generate(model, zoo.batch(name, samples(name, modality), padding=3))
    for i in (0, 1):
        assert_equal(padded.row(i), alone[i])


@once
@pytest.mark.parametrize("k", [0, 1, 4])
def test_any_boundary_is_the_reference(name, modality, k):
    model = zoo.model(name)
    sample = zoo.sample(name, modality, 0)
    with foveate.attach(model, HalfAt(k=k)):
        run = generate(model, zoo.batch(name, [sample]), 6)
        padded = generate(model, zoo.batch(name, samples(name, modality), padding=2), 6)
    drop = Drop(every_second(sample, per_item=False), k=k)
    assert_equal(run.row(0), Reference(model, name, sample).generate(drop, 6))
    assert_equal(padded.row(0), run.row(0))


@once
def test_the_laws_can_fail(name, modality):
    """The other half, the other numbering and the other boundary give other answers."""
    model = zoo.model(name)
    sample = zoo.sample(name, modality, 0)
    inputs = zoo.batch(name, [sample])
    reference = Reference(model, name, sample)
    with foveate.attach(model, Half()):
        half = generate(model, inputs, 3).row(0)
    with foveate.attach(model, HalfAt(k=2)):
        at_two = generate(model, inputs, 3).row(0)
    stays, row = every_second(sample), every_second(sample, per_item=False)
    assert_unequal(half, reference.generate(Drop(every_second(sample, start=1)), 3))
    assert_unequal(half, reference.generate(Drop(stays, packed=True), 3))
    assert_unequal(half, reference.generate(Drop(stays, k=2), 3))
    assert_unequal(at_two, reference.generate(Drop(row, k=1), 3))
    assert_unequal(at_two, reference.generate(Drop(row, k=3), 3))
    with foveate.attach(model, Half()):
        other = {k: v + 1 if "pixel_values" in k else v for k, v in inputs.items()}
        assert_unequal(half, generate(model, other, 3).row(0))


@once
def test_detaching_leaves_no_trace(name, modality):
    model = zoo.model(name)
    before = bare(name, modality, "sdpa", 0)
    inputs = zoo.batch(name, [zoo.sample(name, modality, 0)])
    inner = model.model
    attributes = set(inner.__dict__)
    for method in (Half(), HalfAt(), Half() + HalfAt()):
        with foveate.attach(model, method):
            generate(model, inputs, 2)
        assert torch.equal(generate(model, inputs).logits, before.logits)
    assert set(inner.__dict__) == attributes
    assert not any(m._forward_pre_hooks for m in model.modules())


def boom(*_):
    raise ZeroDivisionError


class Broken(Half):
    """Fails while it selects."""

    def select(self, tokens, signals, keep):
        boom()


@pytest.mark.parametrize("where", ["projector", "selection", "layer"])
@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "gemma3"])
def test_an_exception_inside_leaves_no_trace(name, where):
    model = zoo.model(name)
    inputs = zoo.batch(name, [zoo.sample(name, "image", 0)])
    before = bare(name, "image", "sdpa", 0)
    method = (Broken() if where == "selection" else Half()) + HalfAt(k=2)
    module = model.get_decoder().layers[3]
    if where == "projector":
        module = resolve_path(model.model, family_of(model.config).projector)
    handle = module.register_forward_pre_hook(boom) if where != "selection" else None
    with foveate.attach(model, method) as attachment:
        with pytest.raises(ZeroDivisionError):
            generate(model, inputs, 2)
        if handle:
            handle.remove()
            again = generate(model, inputs)
            attachment.detach()
            with foveate.attach(model, method):
                assert torch.equal(generate(model, inputs).logits, again.logits)
    assert torch.equal(generate(model, inputs).logits, before.logits)
