import pytest
import torch

from foveate.errors import BudgetError, InvalidParameter
from foveate.methods.tokens.visionzip import VisionZip, compress
from foveate.ops.tiles import is_stitched
from foveate.signals import ClassState, ProjectorInput, VisionAttention, VisionKeys
from foveate.tokens import Grid


def run(method, tokens, make_signals, **kwargs):
    signals = make_signals(method, tokens, **kwargs)
    return method.reduce(tokens, signals, method.count(tokens.grid)), signals


def test_the_documented_splits():
    # Other budgets are in proportion, rounded: 10.9, 4.8 and 1.4.
    for keep, contextual in ((64, 10), (128, 20), (192, 30), (70, 11), (31, 5), (9, 1)):
        assert VisionZip()._contextual(keep) == contextual


def test_order_is_class_then_dominant_then_contextual(make_tokens, make_signals, layouts):
    tokens = make_tokens(layouts["picture"])
    out, signals = run(VisionZip(keep=12, contextual=3), tokens, make_signals)
    assert out.special.tolist() == [[True] + [False] * 11] * 2
    torch.testing.assert_close(out.features[:, 0], signals.project(signals[ClassState()])[:, 0])
    score = signals[VisionAttention()].sum(1)
    best = score.argsort(descending=True)[:, :8].sort(1).values
    assert torch.equal(out.index[:, 1:9], best)
    expected = tokens.features.gather(1, best[..., None].expand(-1, -1, 10))
    assert torch.equal(out.features[:, 1:9], expected)


def test_towers_without_a_class_token_spend_all_on_patches(make_tokens, make_signals, layouts):
    tokens = make_tokens(layouts["picture"])
    out, _ = run(VisionZip(keep=12, contextual=3), tokens, make_signals, class_token=False)
    assert not out.special.any() and out.size.sum(1).tolist() == [36, 36]


def test_every_other_token_joins_the_nearest_target(make_tokens, make_signals, layouts):
    tokens = make_tokens(layouts["picture"], batch=1)
    for mean in (False, True):
        method = VisionZip(keep=12, contextual=3, mean_preserving=mean)
        out, signals = run(method, tokens, make_signals)
        x, keys = signals[ProjectorInput()][0], signals[VisionKeys()].mean(1)[0]
        rest = [i for i in range(36) if i not in out.index[0, 1:9].tolist()]
        targets = rest[:: len(rest) // 3][:3]
        assert out.index[0, 9:].tolist() == targets
        joined = {t: [] for t in targets}
        for i in set(rest) - set(targets):
            likeness = [torch.cosine_similarity(keys[i], keys[t], dim=0).item() for t in targets]
            joined[targets[likeness.index(max(likeness))]].append(i)
        for place, (target, members) in enumerate(joined.items(), start=9):
            total = x[members].sum(0)
            if mean:
                vector = (x[target] + total) / (len(members) + 1)
            else:
                vector = x[target] + total / max(1, len(members))
            torch.testing.assert_close(out.features[0, place], signals.project(vector))
            held = (out.assign[0] == place).nonzero()[:, 0].tolist()
            assert held == sorted([target, *members])
            assert out.size[0, place] == len(held)


def test_a_tiled_picture_is_packed_as_stitched(make_tokens, make_signals, layouts):
    layout = layouts["tiled"]
    out, _ = run(VisionZip(keep=30, contextual=2), make_tokens(layout), make_signals)
    assert is_stitched(layout.grid)
    # 6 each for the overview and four crops: class, 3 dominant, 2 contextual.
    special = [True] + [False] * 5 + [False] * 12 + [True] * 4 + [False] * 8
    assert out.special.tolist() == [special] * 2
    views = layout.view[out.index]
    assert (views[:, 1:6] == 0).all() and (views[:, 6:18] > 0).all()
    assert (out.index[:, 6:18].diff(dim=1) > 0).all()
    assert views[:, 22:].tolist() == [[1, 1, 2, 2, 3, 3, 4, 4]] * 2
    assert out.size.sum(1).tolist() == [85, 85], "80 patches and five class tokens"


def test_class_tokens_of_a_tiled_picture_come_crop_by_crop(make_tokens, make_signals, layouts):
    tokens = make_tokens(layouts["tiled"])
    out, signals = run(VisionZip(keep=30, contextual=2), tokens, make_signals)
    states = signals.project(signals[ClassState()])
    torch.testing.assert_close(out.features[:, 0], states[:, 0])
    torch.testing.assert_close(out.features[:, 18:22], states[:, 1:])


def test_frames_follow_one_another(make_tokens, make_signals, layouts):
    layout = layouts["video"]
    out, _ = run(VisionZip(keep=20, contextual=1), make_tokens(layout), make_signals)
    assert not is_stitched(layout.grid)
    frame = [True] + [False] * 4
    assert out.special.tolist() == [frame * 4] * 2
    views = layout.view[out.index].masked_fill(out.special, -1)
    assert views[0].tolist() == [v for i in range(4) for v in [-1, i, i, i, i]]


def test_more_targets_than_tokens_are_cut():
    x, score = torch.randn(1, 6, 4), torch.rand(1, 6)
    group, at, vectors = compress(x, score, x, dominant=4, contextual=5)
    assert at.shape == (1, 6) and vectors.shape == (1, 2, 4)
    assert sorted(group[0].tolist()) == list(range(6))
    torch.testing.assert_close(vectors[0], x[0, at[0, 4:]])


def test_without_contextual_tokens_the_rest_is_dropped(make_tokens, make_signals, layouts):
    tokens = make_tokens(layouts["picture"])
    out, _ = run(VisionZip(keep=12, contextual=0), tokens, make_signals)
    assert (out.size == 1).all() and (out.assign >= 0).sum(1).tolist() == [11, 11]


def test_splits_that_can_not_be_are_refused():
    with pytest.raises(InvalidParameter, match="contextual=-1"):
        VisionZip(contextual=-1)
    with pytest.raises(BudgetError, match="contextual=8 .* use contextual=3"):
        VisionZip(keep=4, contextual=8).count(Grid(1, 6, 6, (36,)))
