"""Laws that a method joins by being registered."""

import json
from dataclasses import fields

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foveate.catalogue import describe
from foveate.errors import BudgetError, FoveateError, InvalidParameter, UnknownName
from foveate.families.base import raster
from foveate.method import Method, from_dict, register, registered
from foveate.parts import STAGES, TokensPart
from foveate.tokens import Grid
from tests.methods.made import made

METHODS = registered()
TOKENS = [s for s, c in METHODS.items() if any(isinstance(p, TokensPart) for p in c().parts())]
every = pytest.mark.parametrize("slug", METHODS)
tokens_stage = pytest.mark.parametrize("slug", TOKENS)
COUNTED = [s for s, c in METHODS.items() if any(hasattr(p, "count") for p in c().parts())]

grids = st.builds(
    lambda t, h, w, special: Grid(t, h, w, (h * w,) * t, special),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 9),
)


def variants(slug):
    """A method as it is, with another budget where it has one, and with other positions."""
    asked = [{}, {"positions": "packed"}, *[{"keep": 0.75}] * METHODS[slug].reduces]
    return [made(slug, **parameters) for parameters in asked]


@every
def test_describes_itself(slug):
    method = made(slug)
    assert type(method).slug == slug
    assert method.stages and set(method.stages) <= set(STAGES)
    assert type(method).__doc__ and type(method).__module__.rsplit(".", 1)[1]
    # The tables of methods show one line.
    assert not describe(slug)["about"].split("\n")[1]
    assert hash(method) == hash(made(slug))


@every
def test_comes_back_from_its_description(slug):
    for method in variants(slug):
        assert from_dict(method.to_dict()) == method
        assert from_dict(json.loads(json.dumps(method.to_dict()))) == method


@every
def test_its_repr_recreates_it(slug):
    names = {c.__name__: c for c in METHODS.values()}
    for method in variants(slug):
        assert eval(repr(method), names) == method


@every
@pytest.mark.parametrize("keep", [0, -1, 0.0, -0.5, 1.5, float("nan"), True, "64", None])
def test_refuses_what_is_no_budget(slug, keep):
    with pytest.raises(BudgetError, match="keep"):
        made(slug, keep=keep)


@every
def test_refuses_unknown_words(slug):
    with pytest.raises(InvalidParameter, match="sideways"):
        made(slug, positions="sideways")
    with pytest.raises(UnknownName, match="did you mean 'keep'"):
        made(slug, keeps=0.5)


@every
def test_cannot_be_changed(slug):
    method = made(slug)
    for field in fields(method):
        with pytest.raises(AttributeError):
            setattr(method, field.name, 1)


@every
@settings(deadline=None, max_examples=20)
@given(grid=grids)
def test_all_is_all(slug, grid):
    assert made(slug, keep=1.0).budget(grid) == grid.n


@pytest.mark.parametrize("slug", COUNTED)
@settings(deadline=None, max_examples=60)
@given(grid=grids, keep=st.floats(0.01, 1.0) | st.integers(1, 300))
def test_a_budget_is_a_number_of_tokens_or_a_clear_no(slug, grid, keep):
    try:
        n = made(slug, keep=keep).budget(grid)
    except BudgetError as error:
        assert str(error).endswith(".") and "keep" in str(error)
        return
    assert isinstance(n, int) and 1 <= n <= grid.n


@tokens_stage
@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("keep", [12, 0.4, 0.9])
def test_reduces_to_exactly_its_budget(slug, layout, keep, class_token, make_tokens, make_signals):
    method, tokens = made(slug, keep=keep), make_tokens(layout)
    count = method.count(layout.grid)
    out = method.reduce(tokens, make_signals(method, tokens, class_token=class_token), count)
    assert method.budget(layout.grid) == count
    assert out.features.shape == (2, count, tokens.features.shape[2])
    assert out.features.isfinite().all()
    for name in ("position", "size", "special", "view", "index"):
        assert getattr(out, name).shape[:2] == (2, count), name


@tokens_stage
@pytest.mark.parametrize("class_token", [True, False])
def test_keeps_the_books(slug, layout, class_token, make_tokens, make_signals):
    method, tokens = made(slug, keep=0.4), make_tokens(layout)
    count = method.count(layout.grid)
    out = method.reduce(tokens, make_signals(method, tokens, class_token=class_token), count)
    assert out.assign.shape == (2, layout.n)
    for b in range(2):
        held = out.assign[b]
        assert held.max() < count and held.min() >= -1
        members = held[held >= 0].bincount(minlength=count)
        own = out.index[b] >= 0
        # A token stands in a slot that it holds, and counts the slots that it holds.
        assert torch.equal(held[out.index[b][own]], own.nonzero()[:, 0])
        assert torch.equal(out.size[b][own], members[own].float())
        assert not members[~own].any() and (out.size[b][~own] == 1).all()
        kept = out.index[b][own]
        assert len(kept.unique()) == len(kept)
        for name in ("position", "special", "view"):
            before = getattr(layout, name)[kept]
            assert torch.equal(getattr(out, name)[b][own], before), name


@tokens_stage
def test_a_batch_gives_what_each_item_gives_alone(slug, layout, make_tokens, make_signals):
    method, tokens = made(slug, keep=0.4), make_tokens(layout, batch=3)
    signals, count = make_signals(method, tokens), method.count(layout.grid)
    together = method.reduce(tokens, signals, count)
    for b in range(3):
        alone = type(signals)(
            {need: signals[need][b : b + 1] for need in method.needs}, signals.project
        )
        out = method.reduce(tokens.row(b), alone, count)
        torch.testing.assert_close(out.features[0], together.features[b])
        assert torch.equal(out.assign[0], together.assign[b])


@tokens_stage
def test_reduces_what_was_reduced_before(slug, layout, make_tokens, make_signals):
    method, tokens = made(slug, keep=0.3), make_tokens(layout, batch=1)
    first = tokens.take(torch.arange(0, layout.n, 2)[None])
    signals = make_signals(method, tokens)
    values = {}
    for need in method.needs:
        value = signals[need]
        dim = [i for i, n in enumerate(value.shape) if n == layout.n]
        values[need] = value.index_select(dim[0], first.index[0]) if dim else value
    count = method.count(first.extent())
    out = method.reduce(first, type(signals)(values, signals.project), count)
    assert out.n == count < first.n
    assert out.assign.shape == (1, layout.n) and int(out.assign.max()) < count
    assert (out.assign[0, 1::2] == -1).all()


@tokens_stage
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(t=st.integers(1, 3), h=st.integers(1, 7), w=st.integers(1, 7), keep=st.integers(1, 147))
def test_any_grid_and_any_count(slug, t, h, w, keep, make_tokens, make_signals):
    layout = raster(t, h, w)
    method = made(slug, keep=keep)
    try:
        count = method.count(layout.grid)
    except BudgetError:
        assert keep > layout.n or keep < t
        return
    # What goes on reducing inside the language model lets more in.
    assert count == keep or len(method.stages) > 1 and count > keep
    if count < layout.n:
        tokens = make_tokens(layout, batch=1)
        assert method.reduce(tokens, make_signals(method, tokens), count).n == count


def test_two_methods_can_not_share_a_slug():
    class Other(Method):
        slug = "fastervlm"

    with pytest.raises(FoveateError, match="fastervlm"):
        register(Other)
