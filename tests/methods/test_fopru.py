import pytest
import torch

import foveate
from foveate.errors import BudgetError, InvalidParameter, UnsupportedCall
from foveate.families.base import raster
from foveate.methods.tokens.fopru import FoPru, significance
from foveate.signals import Signals, VisionAttention
from foveate.tokens import Grid
from tests.families import zoo


def reduced(method, tokens, attention):
    signals = Signals({method.needs[0]: attention})
    return method.reduce(tokens, signals, method.count(tokens.grid))


def random(tokens, seed=0):
    attention = torch.rand(2, 2, 3, tokens.n, generator=torch.Generator().manual_seed(seed))
    attention[:, 1] = 1
    return attention


def test_what_varies_more_decides_in_every_view():
    view = torch.tensor([[0] * 8 + [1] * 8])
    flat, wild = torch.ones(8), torch.arange(8.0)
    gets, gives = torch.cat([flat, wild]), torch.cat([wild, flat])
    attention = torch.stack([gets, gives])[None, :, None]
    assert significance(attention, view, "variance")[0].tolist() == [*range(8), *range(8)]
    assert torch.equal(significance(attention, view, "given")[0], gives)
    assert torch.equal(significance(attention, view, "received")[0], gets)


def test_rounding_of_a_constant_never_decides():
    gets = 1 + 1e-6 * torch.rand(36, generator=torch.Generator().manual_seed(0))
    gives = 1 + 1e-7 * torch.rand(36, generator=torch.Generator().manual_seed(1)).sign()
    gives[::2] += 1e-7
    attention, view = torch.stack([gets, gives])[None, :, None], torch.zeros(1, 36).long()
    attention[:, 0] += torch.arange(36) * 1e-4
    assert torch.equal(significance(attention, view, "variance")[0], attention[0, 0, 0])


@pytest.mark.parametrize("name", ["llava_onevision", "paligemma"])
def test_without_a_class_token_what_is_received_decides(name):
    model, batch = zoo.model(name), zoo.batch(name, [zoo.sample(name, "image")])
    kept = []
    for score in ("variance", "received"):
        with foveate.attach(model, FoPru(keep=0.4, score=score)) as att, torch.no_grad():
            model(**batch)
        kept.append(att.report.kept[0].tolist())
    assert kept[0] == kept[1]


def test_rows_stay_whole_and_are_the_best(make_tokens, layouts):
    tokens = make_tokens(layouts["picture"])
    attention = random(tokens)
    out = reduced(FoPru(keep=0.33, strategy="row"), tokens, attention)
    value = attention[:, 0].mean(1).view(2, 6, 6).mean(2)
    for b in range(2):
        rows = value[b].argsort(descending=True)[:2].sort().values
        assert out.index[b].tolist() == [6 * r + c for r in rows.tolist() for c in range(6)]


@pytest.mark.parametrize("kind", ["tiled", "unpadded", "column"])
def test_rows_of_a_stitched_picture_keep_their_newlines(make_tokens, layouts, kind):
    layout = layouts[kind]
    tokens, method = make_tokens(layout), FoPru(keep=0.4, strategy="row")
    out = reduced(method, tokens, random(tokens))
    overview, picture = method.rows(layout.grid)
    assert out.special.sum(1).tolist() == [picture] * 2
    for b in range(2):
        rows = [tuple(p) for p in out.position[b, ~out.special[b], :2].tolist()]
        assert sum(t == 0 for t, _ in set(rows)) == overview
        assert sum(t == 1 for t, _ in set(rows)) == picture
        for row in set(rows):
            assert rows.count(row) == int(
                (layout.position[:, :2] == torch.tensor(row)).all(1).sum()
            )
        # Behind the last patch of each row stands the newline of that row.
        ends = out.index[b][out.special[b]]
        assert set((ends - 1).tolist()) <= set(out.index[b].tolist())


def test_an_even_map_keeps_what_comes_first(make_tokens, layouts):
    tokens = make_tokens(layouts["picture"])
    even = torch.ones(2, 2, 3, 36)
    for strategy in ("rank", "row"):
        out = reduced(FoPru(keep=12, strategy=strategy), tokens, even)
        assert out.index.tolist() == [list(range(12))] * 2


def test_one_row_keeps_all_and_one_column_ranks(make_tokens):
    assert FoPru(keep=0.2, strategy="row").count(Grid(1, 1, 9, (9,))) == 9
    tokens = make_tokens(raster(1, 9, 1))
    rank, row = (
        reduced(FoPru(keep=4, strategy=s), tokens, random(tokens)).index for s in ("rank", "row")
    )
    assert torch.equal(rank, row)


def test_shifted_content_shifts_the_rows(make_tokens, layouts):
    tokens = make_tokens(layouts["wide"])
    attention = random(tokens)
    moved = attention.view(2, 2, 3, 3, 7).roll(1, 3).flatten(3)
    method = FoPru(keep=7, strategy="row")
    a, b = (reduced(method, tokens, x).position[:, 0, 1] for x in (attention, moved))
    assert torch.equal((a + 1) % 3, b)


def test_counts_follow_the_rows():
    grid = Grid(1, 24, 24, (576,))
    assert FoPru(keep=0.002).count(grid) == 1
    assert FoPru(keep=0.002, strategy="row").count(grid) == 24
    assert FoPru(keep=0.25, strategy="row").count(grid) == 144
    assert FoPru(keep=48, strategy="row").count(grid) == 48
    assert FoPru(keep=1.0, strategy="row").count(Grid(1, 1, 7, (7,))) == 7
    with pytest.raises(BudgetError, match="keep=50 .* use keep=48"):
        FoPru(keep=50, strategy="row").count(grid)


def test_rows_that_are_gone_are_refused():
    with pytest.raises(UnsupportedCall, match="rank"):
        FoPru(keep=0.5, strategy="row").count(Grid(1, 1, 9, (3, 4)))


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl", "idefics3"])
def test_rows_on_models(name):
    model, batch = zoo.model(name), zoo.batch(name, [zoo.sample(name, "image", i) for i in (0, 1)])
    method = FoPru(keep=0.4, strategy="row")
    with foveate.attach(model, method) as att, torch.no_grad():
        model(**batch)
    grids = [trace.layout.grid for trace in att.report.traces]
    assert att.report.tokens_out == [method.budget(grid) for grid in grids]


def test_words_out_of_range_are_refused():
    for wrong in ({"strategy": "column"}, {"score": "mean"}):
        with pytest.raises(InvalidParameter, match=next(iter(wrong))):
            FoPru(**wrong)


def test_the_last_but_one_layer_is_read_unless_another_is_named(make_tokens, layouts):
    tokens = make_tokens(layouts["picture"])
    attention = random(tokens)
    for layer, method in ((-2, FoPru(keep=0.25)), (-1, FoPru(keep=0.25, layer=-1))):
        signals = Signals({VisionAttention(rows="mutual", layer=layer): attention})
        index = method.reduce(tokens, signals, 9).index
        best = attention[:, 0].mean(1).topk(9).indices.sort().values
        assert torch.equal(index, best)
