import pytest
import torch
from torch import nn

import foveate
from foveate.errors import InvalidParameter
from foveate.methods.layers.explain_compress import (
    ExplainCompress,
    Relevance,
    instruction_attention,
)
from foveate.parts import BoundaryState
from foveate.signals import Signals
from foveate.trained import lent

CHANNELS = (4, 8)


def network(heads=None, seed=0):
    torch.manual_seed(seed)
    return Relevance(CHANNELS, heads).requires_grad_(False)


def state(visual, valid=None, labels=None):
    """A row of columns whose layer-0 attention says which row asks: row r gives column c r + c."""
    visual = torch.tensor(visual).bool()
    n = visual.shape[1]
    valid = torch.ones_like(visual) if valid is None else torch.tensor(valid).bool()
    last = torch.where(valid, torch.arange(n), -1).amax(1)

    def attention(rows):
        seen = (rows[..., None] + torch.arange(n)).float()
        return torch.stack([seen, seen + 2], 1)

    return BoundaryState(
        hidden=torch.zeros(len(visual), n, 6),
        valid=valid,
        visual=visual,
        item=torch.where(visual, 0, -1),
        entered=visual.sum(1),
        last=last,
        labels=None if labels is None else torch.tensor(labels),
        attention=attention,
        signals=Signals({}),
    )


def test_shares_sum_to_one_at_any_length():
    for n, heads in ((1, None), (7, 2), (64, 2), (200, None)):
        shares = network(heads)(torch.rand(3, 2, n))
        assert shares.shape == (3, n)
        torch.testing.assert_close(shares.sum(1), torch.ones(3))


def test_scores_move_with_the_tokens_away_from_the_ends():
    f, x = network(), torch.rand(1, 2, 40)
    moved = f.logits(x.roll(5, 2))
    torch.testing.assert_close(moved[:, 10:-5], f.logits(x).roll(5, 1)[:, 10:-5])


def test_only_the_depth_wise_part_looks_at_neighbours():
    convolutions = [m for m in Relevance((32, 64)).modules() if isinstance(m, nn.Conv1d)]
    assert [(c.groups, c.kernel_size[0]) for c in convolutions] == [
        (1, 3), (1, 1), (32, 3), (1, 1), (1, 1),
    ]  # fmt: skip
    count = sum(p.numel() for p in Relevance(ExplainCompress().channels).parameters())
    assert 170_000 < count < 190_000


def test_text_behind_the_tokens_asks():
    # Rows 4 and 5 ask: the mean row is 4.5, and the second head adds 2.
    columns = torch.arange(6).float()
    seen = instruction_attention(state([[0, 1, 1, 1, 0, 0]]))
    torch.testing.assert_close(seen, torch.stack([columns + 4.5, columns + 6.5])[None])


def test_padding_answers_and_shorter_questions_do_not_ask():
    columns = torch.arange(6).float()
    seen = instruction_attention(
        state(
            [[0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0]],
            valid=[[1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1]],
            labels=[[-100, -100, -100, -100, 7, -100], [-100, -100, -100, -100, -100, 7]],
        )
    )
    torch.testing.assert_close(seen[:, 0], torch.stack([columns + 3, columns + 4]))


def test_the_last_row_asks_where_no_text_follows():
    seen = instruction_attention(state([[0, 0, 1, 1]]))
    torch.testing.assert_close(seen[:, 0], torch.arange(4).float()[None] + 3)


def test_the_best_of_the_network_stay():
    s = state([[0, 1, 1, 1, 1, 0, 0, 0]])
    f = network()
    with lent("explain_compress", f):
        kept = ExplainCompress(keep=2).at_boundary(0, 4, s)
    best = f(instruction_attention(s)[..., 1:5])[0].topk(2).indices + 1
    assert kept[0].nonzero()[:, 0].tolist() == sorted({0, 5, 6, 7, *best.tolist()})
    assert ExplainCompress(keep=1.0).at_boundary(0, 4, s) is None


def test_other_questions_keep_other_tokens_and_all_layers_are_short():
    model, processor = foveate.mini("nano")
    item = foveate.mini.world.items("I1", "test", 1)[0]
    kept = []
    with foveate.attach(model, ExplainCompress(keep=0.25, weights="random")) as att:
        for question in ("what colour is the ring?", "how many squares are there?"):
            inputs = processor(images=item.image(), text=f"<image> {question}", return_tensors="pt")
            model.generate(**inputs, max_new_tokens=2)
            kept.append(set(att.report.kept[0].tolist()))
            assert att.report.tokens_by_layer == [[16] * 6]
    assert kept[0] != kept[1]


def test_what_is_no_network_is_refused():
    with pytest.raises(InvalidParameter, match="channels="):
        ExplainCompress(channels=())
    with pytest.raises(InvalidParameter, match="heads=0"):
        ExplainCompress(heads=0)
    with pytest.raises(InvalidParameter, match="has 2 attention heads"):
        network(3)(torch.rand(1, 2, 5))
