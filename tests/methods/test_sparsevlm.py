import pytest
import torch

import foveate
from foveate.errors import BudgetError, InvalidParameter
from foveate.methods.layers.sparsevlm import SparseVLM, clusters_of, find_raters
from foveate.ops.attention import Heads
from foveate.parts import BoundaryState
from foveate.signals import DecoderHeads, Signals
from tests.engine.running import pair
from tests.families import zoo
from tests.methods.test_layers import boundary


def with_heads(seed=0) -> BoundaryState:
    state = boundary(seed=seed)
    g = torch.Generator().manual_seed(seed)
    b, n = state.visual.shape
    state.hidden = torch.randn(b, n, 6, generator=g)
    query, key = (torch.randn(b, h, n, 4, generator=g) for h in (4, 2))
    state.signals = Signals({DecoderHeads(): Heads(query, key, 0.5, state.valid)})
    return state


def test_it_has_the_papers_layers():
    assert SparseVLM().boundaries(32) == (0, 3, 7, 16)
    assert SparseVLM().boundaries(5) == (0, 1, 2)
    assert SparseVLM(keep=1.0).boundaries(32) == () == SparseVLM().boundaries(1)


@pytest.mark.parametrize("n", [4, 30, 576])
def test_kept_and_merged_together_are_the_total(n):
    method = SparseVLM()
    for total in range(1, n):
        kept, recycled, clusters = method._split(n, total)
        assert kept + clusters == total and kept + recycled <= n
        assert (recycled, clusters) in (clusters_of(n - kept), (0, 0))
    assert SparseVLM(retained=(300,), pruning_layers=(2,))._split(576, 300) == (300, 83, 9)
    assert SparseVLM(recycle=False)._split(n, n - 1) == (n - 1, 0, 0)


def test_raters_are_words_that_the_picture_resembles_above_average():
    picture, words = torch.eye(4)[None, :2] * 9, torch.eye(4)[None]
    alive = torch.tensor([[True, True, True, False]])
    assert find_raters(picture, words, alive).tolist() == [[True, True, False, False]]


def test_each_picture_has_its_own_raters_behind_it():
    state = with_heads()
    method = SparseVLM(pruning_layers=(0,), retained=(2,), recycle=False)
    assert method.at_boundary(0, 2, state) is None
    raters = state.notes["raters"]
    assert raters.shape == (3, 2, 13)
    assert not raters[0, 0, 0], "the word in front of the picture"
    assert raters[1, 1].nonzero().tolist() == [[2]], "no word behind: the last one rates"
    merge = method.at_boundary(1, 2, state)
    heads, columns = state.signals[DecoderHeads()], torch.arange(13)
    words = (~state.visual[0]).nonzero()[:, 0][raters[0, 0, :5]]
    seen = heads.rows(words.expand(3, -1))[0].mean((0, 1))[1:9]
    best = seen.argsort(descending=True)[:2].sort().values + 1
    kept = (merge.into[0] == columns) & state.visual[0]
    assert kept.nonzero()[:, 0].tolist() == best.tolist()


def test_what_is_recycled_is_merged_once_behind_its_picture():
    state = with_heads()
    method = SparseVLM(pruning_layers=(0,), retained=(3,))
    method.at_boundary(0, 2, state)
    merge = method.at_boundary(1, 2, state)
    columns = torch.arange(13)
    for b, number in ((0, 0), (1, 1)):
        own = columns[state.item[b] == number]
        kept = own[merge.into[b, own] == own]
        n, (recycled, clusters) = len(own), clusters_of(len(own) - 3)
        kept = kept[merge.place[b, kept].argsort()]
        assert len(kept) == 3 + clusters and (merge.into[b, own] < 0).sum() == n - 3 - recycled
        for centre in kept[3:]:
            members = own[merge.into[b, own] == centre]
            assert torch.allclose(merge.weight[b, members].sum(), torch.ones(()), atol=1e-4)
        assert merge.place[b, kept[3:]].min() > merge.place[b, own[-1:]] or own[-1] in kept[3:]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_the_mean_over_layers_is_what_was_asked_for(name):
    model = zoo.model(name)
    (one, _), _ = pair(name)
    with foveate.attach(model, SparseVLM(keep=0.6)) as att, torch.no_grad():
        model(**one)
    held = att.report.tokens_by_layer[0]
    assert sum(held) / len(held) == pytest.approx(0.6 * held[0], abs=1)
    assert att.report.traces[0].size.sum() <= held[0]


def test_what_can_not_be_is_refused():
    with pytest.raises(InvalidParameter, match="pruning_layers="):
        SparseVLM(pruning_layers=(3, 2))
    with pytest.raises(InvalidParameter, match="retained="):
        SparseVLM(retained=(3, 0))
    with pytest.raises(InvalidParameter, match="up to 2"):
        SparseVLM(pruning_layers=(1, 3)).boundaries(4)
    with pytest.raises(InvalidParameter, match="2 counts, but tokens are pruned after 3"):
        SparseVLM(retained=(3, 2)).boundaries(32)
    with pytest.raises(BudgetError, match="earlier layers"):
        SparseVLM(keep=0.05).at_boundary(3, 32, with_heads())


def test_the_mean_over_all_patches_says_who_rates():
    """Each patch shares one unit among the words that may rate; the mean over patches decides."""
    g = torch.Generator().manual_seed(3)
    picture, words = torch.randn(2, 9, 6, generator=g), torch.randn(2, 7, 6, generator=g)
    alive = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 0]]).bool()
    found = find_raters(picture, words, alive)
    for b in range(2):
        may = alive[b].nonzero()[:, 0].tolist()
        given = dict.fromkeys(may, 0.0)
        for patch in picture[b]:
            pull = {t: (patch @ words[b, t]).exp().item() for t in may}
            for t in may:
                given[t] += pull[t] / sum(pull.values()) / 9
        average = sum(given.values()) / len(may)
        assert found[b].nonzero()[:, 0].tolist() == [t for t in may if given[t] > average]
