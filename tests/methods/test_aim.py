import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import foveate
from foveate.errors import BudgetError, InvalidParameter
from foveate.families.base import raster
from foveate.methods.tokens.aim import AIM, halve, slope_of_share
from foveate.signals import ProjectorInput, Signals, VisionKeys
from foveate.tokens import Grid
from tests.families import zoo


def test_the_papers_counts():
    assert AIM().count(Grid(32, 14, 14, (196,) * 32)) == 32 * 49
    assert AIM().count(Grid(1, 24, 24, (576,))) == 144
    assert AIM(keep=0.125 * AIM.held).count(Grid(1, 24, 24, (576,))) == 72
    assert AIM(keep=0.4375 * AIM.held).count(Grid(1, 24, 24, (576,))) == 252


def test_rounds_halve_and_the_last_takes_the_rest():
    x = torch.randn(2, 196, 4)
    assign, merged = halve(x, x, 49)
    assert merged.shape == (2, 49, 4) and (assign.max(1).values == 48).all()
    _, uneven = halve(torch.randn(1, 576, 4), torch.randn(1, 576, 4), 252)
    assert uneven.shape[1] == 252
    same = torch.ones(1, 20, 3)
    assert torch.equal(halve(same, same, 5)[1], same[:, :5])


def test_frames_do_not_see_each_other(make_tokens, layouts):
    tokens = make_tokens(layouts["video"], batch=1)
    method = AIM(keep=0.3)
    count = method.count(tokens.grid)
    other = tokens.features.clone()
    other[:, 12:] += 1
    first = method.reduce(tokens, Signals({}), count)
    second = method.reduce(layouts["video"].tokens(other), Signals({}), count)
    assert torch.equal(first.features[:, : count // 4], second.features[:, : count // 4])


def test_keys_can_be_the_metric_with_merging_before_the_projector():
    layout, x = raster(1, 4, 5), torch.randn(1, 20, 6)
    keys = torch.randn(1, 3, 20, 2)
    signals = Signals({ProjectorInput(): x, VisionKeys(layer=-1): keys}, lambda rows: 2 * rows)
    tokens = layout.tokens(torch.zeros(1, 20, 6))
    out = AIM(metric="keys", keep=7).reduce(tokens, signals, 10)
    _, expected = halve(x, keys.transpose(1, 2).flatten(2), 10)
    assert torch.allclose(out.features, 2 * expected)


@settings(deadline=None, max_examples=60)
@given(layers=st.integers(2, 48), share=st.floats(AIM.held, 1.0))
def test_the_fall_has_the_mean_share_asked_for(layers, share):
    first, step = slope_of_share(share, layers)
    held = [max(0.0, 1 - step * max(0, k - first)) for k in range(layers)]
    assert sum(held) / layers == pytest.approx(share, abs=1e-6)


def test_qwen2_has_the_papers_schedule():
    assert slope_of_share(AIM.held, 28) == (14, 0.125)
    pruning = AIM(l1=13, step=0.125).parts()[1]
    assert pruning.boundaries(32) == tuple(range(14, 32))
    with pytest.raises(BudgetError, match="lower l1"):
        AIM(l1=25).parts()[1].boundaries(28)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_nothing_is_left_behind_the_end_of_the_fall(name):
    """From there on, the language model reads text alone."""
    model = zoo.model(name)
    batch = zoo.batch(name, [zoo.sample(name, "image")])
    with foveate.attach(model, AIM(keep=0.5, l1=1, step=0.5)) as att, torch.no_grad():
        out = model(**batch)
    entered = att.report.tokens_by_layer[0][0]
    assert att.report.tokens_by_layer == [[entered, entered, entered // 2, 0, 0]]
    assert att.report.tokens_out == [0] and out.logits.isfinite().all()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"metric": "x"}, "metric='x'"),
        ({"l1": -1}, "l1=-1"),
        ({"step": 0}, "step=0"),
        ({"tau_imp": 0}, "tau_imp=0"),
        ({"d": 2}, "d=2"),
    ],
)
def test_what_is_no_schedule_is_refused(parameters, words):
    with pytest.raises(InvalidParameter, match=words):
        AIM(**parameters)
    with pytest.raises(InvalidParameter, match="l1=4 is out of range: .* up to 3"):
        AIM(l1=4).parts()[1].boundaries(4)


def merged_in_rounds(x, keys, count):
    """Rounds over lists: even places meet odd ones by the keys; features and keys become means."""
    x, keys = list(x), list(keys)
    while len(x) > count:
        even, odd = range(0, len(x), 2), range(1, len(x), 2)
        near = {
            i: max((torch.cosine_similarity(keys[i], keys[j], 0).item(), -j) for j in odd)
            for i in even
        }
        falling = sorted(even, key=lambda i: -near[i][0])
        gone = falling[: min(len(x) - count, len(x) // 2)]
        groups = [[i] for i in falling[len(gone) :]]
        groups += [[j, *(i for i in gone if -near[i][1] == j)] for j in odd]
        x, keys = (
            [torch.stack([rows[i] for i in own]).mean(0) for own in groups] for rows in (x, keys)
        )
    return torch.stack(x)


@pytest.mark.parametrize("count", [9, 5, 3])
def test_every_round_compares_the_merged_keys(count):
    g = torch.Generator().manual_seed(2)
    x, keys = torch.randn(1, 20, 6, generator=g), torch.randn(1, 3, 20, 2, generator=g)
    signals = Signals({ProjectorInput(): x, VisionKeys(layer=-1): keys}, lambda rows: rows)
    tokens = raster(1, 4, 5).tokens(torch.zeros(1, 20, 6))
    out = AIM(metric="keys").reduce(tokens, signals, count)
    expected = merged_in_rounds(x[0], keys[0].transpose(0, 1).flatten(1), count)
    torch.testing.assert_close(out.features[0], expected)
