from dataclasses import replace
from functools import partial, reduce

import pytest
import torch

import foveate
from foveate.errors import BudgetError, InvalidParameter
from foveate.methods.tokens.catp import CATP, likeness
from foveate.ops.attention import Heads
from foveate.signals import DecoderHeads, Signals
from foveate.tokens import Grid
from tests.families import zoo
from tests.methods.test_layers import boundary

# A demonstration of four tokens, one of six, and the query's picture.
ROWS = [[-1, 0, 0, 0, 0, -1, 1, 1, 1, 1, 1, 1, -1, 2, 2, 2, 2, -1, -1]]


def state_of(seed=0, rows=ROWS):
    state = boundary(seed=seed, rows=rows)
    g = torch.Generator().manual_seed(seed)
    b, n = state.visual.shape
    state.hidden = torch.randn(b, n, 6, generator=g)
    query, key = (torch.randn(b, 2, n, 4, generator=g) for _ in range(2))
    state.signals = Signals({DecoderHeads(): Heads(query, key, 0.5, state.valid)})
    return state


def test_the_papers_budgets():
    assert CATP(R=0.778).count(Grid(1, 24, 24, (576,))) == 351
    assert CATP().count(Grid(1, 24, 24, (576,))) == 352
    assert CATP(R=0.0).count(Grid(1, 4, 4, (16,))) == 16
    assert CATP().parts()[1].boundaries(32) == (5, 6, 7)
    assert CATP(R=0).parts()[1].boundaries(32) == () == CATP(keep=1.0).parts()[1].boundaries(32)


def test_demonstrations_share_freely_and_the_query_keeps_its_part():
    part = CATP(R=0.5, K=2).parts()[1]
    first, second = state_of(0), state_of(1)
    assert part.at_boundary(1, 8, first) is None
    second.notes = first.notes
    keep = part.at_boundary(2, 8, second)
    share = 0.5 / 0.75
    context, query = (second.item == 0) | (second.item == 1), second.item == 2
    assert int((keep & context).sum()) == int(10 * share) and (keep | context).all()
    rows = [s.signals[DecoderHeads()].rows(s.last[:, None]).mean(1)[:, 0] for s in (first, second)]
    sample = torch.zeros_like(query)
    sample[:, 13:] = True
    score = (rows[1] - rows[0]).clamp(min=0) + 0.6 * likeness(second.hidden, sample)
    best = score.masked_fill(~context, -9)[0].argsort(descending=True)[:6]
    assert (keep & context)[0].nonzero()[:, 0].tolist() == sorted(best.tolist())
    last = part.at_boundary(3, 8, second)
    assert int((last & query).sum()) == int(4 * share) and (last | query).all()
    around = torch.zeros_like(query)
    around[:, 1:13] = True
    score = likeness(second.hidden, around).masked_fill(~query, -9)[0]
    assert (last & query)[0].nonzero()[:, 0].tolist() == sorted(
        score.argsort(descending=True)[:2].tolist()
    )


def test_a_demonstration_like_the_query_keeps_more():
    state = state_of()
    state.hidden[:, 13:] = state.hidden[:, 6:7]
    state.hidden[:, 6:12] = state.hidden[:, 6:7]
    state.hidden[:, 1:5] = -state.hidden[:, 6:7]
    part = CATP(R=0.8, K=1, lambda2=100.0).parts()[1]
    keep = part.at_boundary(1, 8, state)[0]
    assert not keep[1:5].any() and keep[6:12].any()


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_the_mean_over_layers_is_what_was_asked_for(name):
    model = zoo.model(name)
    both = zoo.joined(name, zoo.sample(name, "image", 0), zoo.sample(name, "image", 1))
    with foveate.attach(model, CATP(keep=0.6)) as att, torch.no_grad():
        model(**zoo.batch(name, [both]))
    by_layer, n = att.report.tokens_by_layer, sum(att.report.tokens_in)
    held = [sum(layer) for layer in zip(*by_layer, strict=True)]
    assert sum(held) / len(held) == pytest.approx(0.6 * n, abs=2)
    demonstration, query = by_layer
    assert demonstration[0] > demonstration[1] == demonstration[-1]
    assert query[1] == query[0] > query[2] == query[-1]


@pytest.mark.parametrize("R", [0.667, 0.778, 0.3])
def test_r_counts_what_the_prompt_had_not_what_the_first_stage_left(R):
    model = zoo.model("llava")
    samples = [zoo.sample("llava", "image", i % 2) for i in range(5)]
    shots = reduce(partial(zoo.joined, "llava"), samples)
    with foveate.attach(model, CATP(R=R, K=1)) as att, torch.no_grad():
        model(**zoo.batch("llava", [shots]))
    *context, query = att.report.tokens_by_layer
    n = att.report.tokens_in[0]
    assert [item[0] for item in context] == [int(n * (1 - R / 2))] * 4
    assert sum(item[-1] for item in context) == int(4 * n * (1 - R))
    assert query[-1] == int(n * (1 - R))


def test_four_demonstrations_of_576_keep_767():
    rows = [[*[i for i in range(5) for _ in range(383)], -1]]
    state = state_of(rows=rows)
    state.counts = replace(state.known, patches=[[576] * 5])
    keep = CATP(R=0.667, K=1).parts()[1].at_boundary(1, 8, state)
    assert int((keep & (state.item >= 0) & (state.item < 4)).sum()) == 767
    assert state.notes["query"].tolist() == [191]


def test_what_can_not_be_is_refused():
    for parameters in ({"R": 1.0}, {"K": 0}):
        with pytest.raises(InvalidParameter, match=next(iter(parameters))):
            CATP(**parameters)
    with pytest.raises(InvalidParameter, match="K=.* is out of range: .* up to 2"):
        CATP(K=3).parts()[1].boundaries(4)
    with pytest.raises(BudgetError, match="lower K"):
        CATP(keep=0.5, K=6).parts()[1].at_boundary(6, 8, state_of())
    first, second = state_of(), state_of(rows=[ROWS[0][:-1]])
    part = CATP(K=2).parts()[1]
    part.at_boundary(1, 8, first)
    second.notes = first.notes
    with pytest.raises(foveate.UnsupportedCall, match="another K"):
        part.at_boundary(2, 8, second)
