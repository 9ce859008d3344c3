import pytest
import torch

from foveate.errors import InvalidParameter
from foveate.methods.tokens import vispruner
from foveate.methods.tokens.fastervlm import FasterVLM
from foveate.methods.tokens.vispruner import VisPruner, unlike
from foveate.signals import ProjectorInput, Signals, VisionAttention


@pytest.fixture
def tokens(make_tokens, layouts):
    return make_tokens(layouts["picture"])


def kept(method, tokens, signals):
    return method.reduce(tokens, signals, method.count(tokens.grid)).index


def test_all_important_is_fastervlm(tokens, make_signals):
    signals = make_signals(VisPruner(), tokens)
    expected = kept(FasterVLM(keep=9), tokens, signals)
    assert torch.equal(kept(VisPruner(keep=9, important_ratio=1.0), tokens, signals), expected)
    half = kept(VisPruner(keep=9), tokens, signals)
    best = kept(FasterVLM(keep=4), tokens, signals)
    assert all(set(best[b].tolist()) <= set(half[b].tolist()) for b in range(2))


def test_duplicates_go_first(tokens):
    # Attention falls from left to right, so that copies 0, 1 | 2, 3 | ... meet in every split.
    attention = torch.arange(36, 0, -1.0).expand(2, 1, 36)
    x = torch.randn(2, 18, 32, generator=torch.Generator().manual_seed(0))
    twins = x.repeat_interleave(2, 1)
    signals = Signals({VisionAttention(): attention, ProjectorInput(): twins})
    index = kept(VisPruner(keep=18, important_ratio=0.0, round_size=18), tokens, signals)
    assert index.tolist() == [list(range(1, 36, 2))] * 2


@pytest.mark.parametrize("n,k", [(7, 2), (14, 2), (9, 8), (5, 5), (3, 1)])
def test_odd_lists_and_small_halves_work(n, k):
    x = torch.randn(2, n, 6, generator=torch.Generator().manual_seed(n))
    left = unlike(x, torch.arange(n).expand(2, -1), k, 8)
    assert left.shape == (2, k) and all(len(set(row)) == k for row in left.tolist())


def test_the_rule_as_it_is_told():
    x = torch.randn(1, 21, 6, generator=torch.Generator().manual_seed(3))
    left = list(range(21))
    while len(left) > 6:
        even, odd = left[::2], left[1::2]
        twin = {
            i: max(torch.cosine_similarity(x[0, i], x[0, j], 0).item() for j in odd) for i in even
        }
        even.sort(key=lambda i: -twin[i])
        left = even[min(4, len(left) - 6) :] + odd
    assert unlike(x, torch.arange(21)[None], 6, 4)[0].tolist() == left


def test_what_is_no_share_is_refused():
    with pytest.raises(InvalidParameter, match="important_ratio=1.5"):
        VisPruner(important_ratio=1.5)
    with pytest.raises(InvalidParameter, match="round_size=0"):
        VisPruner(round_size=0)


def test_survivors_are_those_of_comparing_all_pairs_in_every_round():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 150, 4, generator=g)
    left = torch.rand(2, 150, generator=g).argsort(1)
    unit = torch.nn.functional.normalize(x, dim=2)
    expected = []
    for alike, rest in zip(unit @ unit.mT, left, strict=True):
        while len(rest) > 20:
            even, odd = rest[::2], rest[1::2]
            twin = alike[even][:, odd].amax(1)
            rest = torch.cat([even[twin.argsort(descending=True)[min(8, len(rest) - 20) :]], odd])
        expected.append(rest)
    assert torch.equal(unlike(x, left, 20, 8), torch.stack(expected))


@pytest.mark.parametrize(("keep", "ratio", "important"), [(7, 0.5, 3), (11, 0.7, 7), (5, 0.3, 1)])
def test_int_of_the_share_is_important(tokens, keep, ratio, important):
    """Of 3.5, 7.7 and 1.5; the copies of what is important go first, so that no more are there."""
    attention = torch.arange(36, 0, -1.0).expand(2, 1, 36)
    x = torch.randn(2, 36, 8, generator=torch.Generator().manual_seed(1))
    # The next in line is a twin of what stands behind it at an odd place, and goes.
    x[:, important] = x[:, important + 1]
    signals = Signals({VisionAttention(): attention, ProjectorInput(): x})
    method = VisPruner(keep=keep, important_ratio=ratio, round_size=36)
    index = kept(method, tokens, signals)
    assert index[:, :important].tolist() == [list(range(important))] * 2
    assert (index != important).all()


def test_too_many_tokens_for_all_pairs_give_the_same(monkeypatch):
    x = torch.randn(2, 90, 6, generator=torch.Generator().manual_seed(5))
    order = torch.rand(2, 90, generator=torch.Generator().manual_seed(6)).argsort(1)
    whole = unlike(x, order, 20, 8)
    monkeypatch.setattr(vispruner, "NEAREST", 4)
    monkeypatch.setattr(vispruner, "PAIRS", 89 * 89)
    monkeypatch.setattr(vispruner, "BLOCK", 90 * 7)
    assert torch.equal(unlike(x, order, 20, 8), whole)
