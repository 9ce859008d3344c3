"""Position rules: what each one numbers, in which family, and that a row's are its own affair."""

from __future__ import annotations

import pytest
import torch

import foveate
from foveate.method import registered
from tests.methods.made import made

from . import zoo
from .halves import Half, HalfAt
from .reference import Drop, Reference, every_second
from .running import assert_equal, bare, generate

# Methods whose official code, or paper, leaves the position ids of what stays as they were.
ORIGINAL = (
    "atp_llava covipal dart dymu dyvte fastv gsearch llavolta lvlm_csp tc_llava videollm_mod "
    "vista_llama yopo zipvl"
).split()
# A method of each kind: before the language model, inside it, both; dropping and merging.
KINDS = (
    foveate.DivPrune,
    foveate.FasterVLM,
    foveate.GridPool,
    foveate.FastV,
    foveate.PyramidDrop,
    foveate.SparseVLM,
    foveate.TransPrune,
    foveate.VisionDrop,
)


def quick_in(*names: str, families):
    """Parametrize `name` over families, of which all but a few are slow."""
    slow = pytest.mark.slow
    return pytest.mark.parametrize(
        "name", [pytest.param(f, marks=() if f in names else slow) for f in families]
    )


def test_defaults_are_native_unless_a_method_keeps_what_was_there():
    for slug in registered():
        assert made(slug).positions == ("original" if slug in ORIGINAL else "native"), slug


@quick_in("llava", "qwen2_5_vl", "qwen3_vl", "paligemma", families=zoo.FAMILIES)
@pytest.mark.parametrize("method", [Half(positions="native"), HalfAt(positions="native")], ids=repr)
def test_native_keeps_three_rows_and_renumbers_one(name, method):
    model, sample = zoo.model(name), zoo.sample(name, "image", 0)
    packed = name not in zoo.MROPE_FAMILIES
    if isinstance(method, HalfAt):
        drop = Drop(every_second(sample, per_item=False), method.k, packed)
    else:
        drop = Drop(every_second(sample), packed=packed)
    with foveate.attach(model, method):
        run = generate(model, zoo.batch(name, [sample]), 2)
    assert_equal(run.row(0), Reference(model, name, sample).generate(drop, 2))


@quick_in("qwen2_5_vl", families=[*zoo.MROPE_FAMILIES, "llava_onevision"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_keeps_all_its_tokens_is_the_bare_model(name, kind):
    """Whatever other rows of the batch lose; and so is one without pictures."""
    model = zoo.model(name)
    large, small, text = (
        zoo.sample(name, "image", 0),
        zoo.sample(name, "image", 1),
        zoo.text_sample(name),
    )
    assert sum(small.items) < sum(large.items)
    with foveate.attach(model, kind(keep=small.items[0], positions="packed")) as attachment:
        run = generate(model, zoo.batch(name, [large, small, text], padding=2), 3)
        assert attachment.report.tokens_out[0] < sum(large.items)
    expected = bare(name, "image", "sdpa", 1)
    assert_equal(run.row(1), (expected.tokens[0, :3], expected.logits[0, :3]))
    assert_equal(run.row(2), generate(model, zoo.batch(name, [text]), 3).row(0))


@quick_in("qwen3_vl", families=zoo.MROPE_FAMILIES)
def test_a_row_keeps_its_positions_up_to_the_boundary_where_it_loses_tokens(name):
    """The second of two packed boundaries renumbers it then, as it would alone."""
    model = zoo.model(name)
    samples = [zoo.sample(name, "image", i) for i in (0, 1)]
    few = sum(samples[1].items)
    method = foveate.PyramidDrop(keep=few, positions="packed") + HalfAt(k=4, positions="packed")
    with foveate.attach(model, method):
        batch = generate(model, zoo.batch(name, samples), 4)
        for i, sample in enumerate(samples):
            alone = generate(model, zoo.batch(name, [sample]), 4)
            assert_equal(batch.row(i), alone.row(0))
    reference = Reference(model, name, samples[1])
    drop = Drop(every_second(samples[1], per_item=False), k=4, packed=True)
    assert_equal(batch.row(1), reference.generate(drop, 4))


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava"])
def test_order_that_changed_is_renumbered_though_nothing_was_lost(name):
    """Packed positions count columns as they stand, so a row in another order is not untouched."""
    from foveate.parts import Merge
    from tests.engine.test_merging import Pairs

    class Turned(Pairs):
        def at_boundary(self, k, layers, state):
            own = torch.arange(state.visual.shape[1]).expand(state.visual.shape)
            place = torch.where(state.visual, -own + 1000, own + 2000 * (own > 2))
            return Merge(own, torch.ones(own.shape), place)

    model, sample = zoo.model(name), zoo.sample(name, "image", 0)
    runs = []
    for positions in ("packed", "original"):
        with foveate.attach(model, Turned(k=1, positions=positions)):
            runs.append(generate(model, zoo.batch(name, [sample]), 2))
    assert (runs[0].logits - runs[1].logits).abs().max() > 0.01
