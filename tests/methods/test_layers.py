"""FastV and PyramidDrop at a boundary, without a model."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import foveate
from foveate.errors import BudgetError, InvalidParameter
from foveate.methods.layers.fastv import FastV
from foveate.methods.layers.pyramiddrop import PyramidDrop, answer_rows, ratios_of_share
from foveate.parts import BoundaryState
from foveate.signals import DecoderAttention, Signals
from tests.families import zoo

# Text is -1; 0 and 1 are the visual items of a row.
ROWS = [
    [-1, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1],
    [-1, -1, 0, 0, 0, 0, -1, 1, 1, 1, 1, 1, 1],
    [-1] * 13,
]


def boundary(needs=(), labels=None, seed=0, rows=ROWS):
    g = torch.Generator().manual_seed(seed)
    item = torch.tensor(rows)
    b, n = item.shape
    attention = torch.rand(b, 4, n, n, generator=g)
    return BoundaryState(
        hidden=torch.zeros(b, n, 2),
        valid=torch.ones(b, n, dtype=torch.bool),
        visual=item >= 0,
        item=item,
        entered=(item >= 0).sum(1),
        last=torch.full((b,), n - 1),
        labels=labels,
        attention=lambda rows: attention.gather(2, rows[:, None, :, None].expand(-1, 4, -1, n)),
        signals=Signals({need: attention[:, :, -1] for need in needs}),
    )


def best(state, scores, counts):
    """Columns that stay by the rule as it is told."""
    keep = ~state.visual
    for b, count in enumerate(counts):
        own = state.visual[b].nonzero()[:, 0].tolist()
        for i in sorted(own, key=lambda i: -scores[b, i].item())[:count]:
            keep[b, i] = True
    return keep


def test_fastv_keeps_what_the_last_row_looks_at():
    method = FastV(keep=0.5)
    state = boundary(method.needs)
    scores = state.signals[method.needs[0]].mean(1)
    assert torch.equal(method.at_boundary(2, 8, state), best(state, scores, [4, 5, 0]))
    counted = FastV(keep=3).at_boundary(2, 8, state)
    assert torch.equal(counted, best(state, scores, [3, 6, 0])), "three of each visual item"
    assert FastV(keep=1.0).at_boundary(2, 8, state) is None


def test_fastv_at_layer_zero_draws():
    method = FastV(k=0, keep=0.5)
    assert method.needs == () and method.boundaries(4) == (0,)
    keep = method.at_boundary(0, 4, boundary())
    assert (keep & (torch.tensor(ROWS) >= 0)).sum(1).tolist() == [4, 5, 0]
    assert torch.equal(keep, method.at_boundary(0, 4, boundary()))
    assert not torch.equal(keep, FastV(k=0, keep=0.5, seed=1).at_boundary(0, 4, boundary()))


def test_fastv_refuses_layers_that_are_not_there():
    assert FastV(k=3).boundaries(4) == (3,)
    with pytest.raises(InvalidParameter, match=r"the model has 4 decoder layers \(0-3\)"):
        FastV(k=4).boundaries(4)
    with pytest.raises(InvalidParameter, match="k=-1"):
        FastV(k=-1)
    with pytest.raises(BudgetError, match="at most 8"):
        FastV(keep=9).at_boundary(2, 8, boundary(FastV().needs))


def test_pyramiddrop_has_the_paper_defaults_at_32_layers():
    method = PyramidDrop()
    assert method.boundaries(32) == (8, 16, 24)
    assert method.ratios(32, method.keep) == (0.5, 0.25, 0.125)
    assert method.boundaries(28) == (7, 14, 21)
    assert method.ratios(28, method.keep) == (0.5, 0.25, 0.125)
    assert [PyramidDrop().boundaries(n) for n in (1, 2, 3, 4)] == [(), (1,), (1, 2), (1, 2, 3)]


@settings(deadline=None)
@given(layers=st.integers(2, 48), data=st.data())
def test_the_schedule_has_the_mean_share_asked_for(layers, data):
    stages = PyramidDrop().boundaries(layers)
    share = data.draw(st.floats(stages[0] / layers + 0.01, 1.0))
    bounds = (0, *stages, layers)
    ratios = (1.0, *ratios_of_share(share, stages, layers))
    spans = [b - a for a, b in zip(bounds, bounds[1:], strict=False)]
    mean = sum(r * s for r, s in zip(ratios, spans, strict=True)) / layers
    assert mean == pytest.approx(share, abs=1e-6)
    assert list(ratios) == sorted(ratios, reverse=True)


def test_pyramiddrop_counts_from_what_entered():
    method = PyramidDrop(layer_list=(1, 2), image_token_ratio_list=(0.5, 0.25))
    state = boundary()
    rows = state.attention(state.last[:, None]).mean((1, 2))
    first = method.at_boundary(1, 4, state)
    assert torch.equal(first, best(state, rows, [4, 5, 0]))
    state.visual = state.visual & first
    second = method.at_boundary(2, 4, state)
    assert (second & state.visual).sum(1).tolist() == [2, 2, 0], (
        "floors of 8 and 10, not of 4 and 5"
    )
    many = PyramidDrop(layer_list=(1,), image_token_ratio_list=(0.1,), min_tokens=3)
    assert (many.at_boundary(1, 4, state) & state.visual).sum(1).tolist() == [3, 3, 0]


def test_pyramiddrop_takes_a_mean_count_per_item():
    method = PyramidDrop(keep=3)
    state = boundary()
    keep = method.at_boundary(1, 4, state) & state.visual
    shares = (3 / 8, 6 / 10)
    expected = [int(n * method.ratios(4, s)[0]) for n, s in zip((8, 10), shares, strict=True)]
    assert keep.sum(1).tolist() == [*expected, 0]


def test_pyramiddrop_in_training_asks_in_front_of_each_answer():
    labels = torch.full((3, 13), -100)
    labels[0, [10, 11]] = 5
    labels[1, [6, 12]] = 5
    rows, real = answer_rows(labels)
    assert rows[0, :1].tolist() == [9] and rows[1].tolist() == [5, 11]
    assert real.tolist() == [[True, False], [True, True], [False, False]]
    method = PyramidDrop(layer_list=(1,), image_token_ratio_list=(0.5,))
    state = boundary(labels=labels)
    every = state.attention(torch.arange(13).expand(3, 13)).mean(1)
    scores = torch.stack([every[0, 9], every[1, [5, 11]].mean(0), every[2, 0]])
    assert torch.equal(method.at_boundary(1, 4, state), best(state, scores, [4, 5, 0]))


def test_pyramiddrop_leaves_samples_without_an_answer_alone():
    labels = torch.full((3, 13), -100)
    labels[1, 12] = 5
    method = PyramidDrop(layer_list=(1,), image_token_ratio_list=(0.5,))
    keep = method.at_boundary(1, 4, boundary(labels=labels))
    assert keep[0].all() and keep[2].all() and not keep[1].all()


def test_pyramiddrop_keeping_all_changes_nothing():
    state = boundary()
    assert PyramidDrop(keep=1.0).at_boundary(1, 4, state) is None
    ones = PyramidDrop(image_token_ratio_list=(1.0, 1.0, 1.0))
    assert ones.at_boundary(1, 4, state) is None


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"layer_list": (3, 2)}, "layer_list="),
        ({"layer_list": (0, 2)}, "layer_list="),
        ({"layer_list": ()}, "layer_list="),
        ({"image_token_ratio_list": (0.5, 0.6)}, "never rise"),
        ({"image_token_ratio_list": (1.5,)}, "never rise"),
        (
            {"layer_list": (1, 2), "image_token_ratio_list": (0.5,)},
            "1 ratios, but layer_list has 2",
        ),
        ({"min_tokens": -1}, "min_tokens=-1"),
    ],
)
def test_pyramiddrop_refuses_what_is_no_staircase(parameters, words):
    with pytest.raises(InvalidParameter, match=words):
        PyramidDrop(**parameters)


def test_pyramiddrop_refuses_what_the_decoder_lacks():
    with pytest.raises(InvalidParameter, match="up to 3"):
        PyramidDrop(layer_list=(2, 4)).boundaries(4)
    with pytest.raises(InvalidParameter, match="2 decoder layers has 1 pruning stages"):
        PyramidDrop(image_token_ratio_list=(0.5, 0.25)).boundaries(2)
    with pytest.raises(BudgetError, match="raise keep"):
        PyramidDrop(keep=0.2).ratios(32, 0.2)


def test_pyramiddrop_trains_on_turns_of_a_padded_batch_as_on_each_alone():
    """A row with fewer answers than its neighbour has rows that don't count, in its padding."""
    model = zoo.model("llava")

    def told(i: int, turns: int) -> tuple[zoo.Sample, list[int]]:
        sample = zoo.sample("llava", "image", i)
        ids, labels = list(sample.ids), [-100] * len(sample.ids)
        for turn in range(turns):
            ids += zoo.words(turn, 3)
            labels += [-100, -100, ids[-1]]
        return zoo.Sample(ids, None, sample.inputs, sample.items), labels

    def kept(rows: list[tuple[zoo.Sample, list[int]]]) -> list[list[int]]:
        batch = zoo.batch("llava", [s for s, _ in rows])
        n = batch["input_ids"].shape[1]
        labels = torch.tensor([[-100] * (n - len(row)) + row for _, row in rows])
        model(**batch, labels=labels)
        return [k.tolist() for k in att.report.kept]

    rows = [told(0, 3), told(1, 1)]
    with foveate.attach(model, PyramidDrop(keep=0.4)) as att, torch.no_grad():
        both = kept(rows)
        alone = [kept([row])[0] for row in rows]
    assert both == alone and both[1] != list(range(len(both[1])))


@pytest.mark.parametrize(("k", "layer"), [(2, 1), (3, 2), (1, 0)])
def test_fastv_reads_the_layer_in_front_of_the_boundary(k, layer):
    assert FastV(k=k).needs == (DecoderAttention(layer=layer),) and FastV().k == 2
