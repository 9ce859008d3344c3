import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.ops.select import top_k, top_mask

rows = st.lists(st.integers(0, 4), min_size=1, max_size=12)


def best(scores, k, allowed):
    order = sorted(allowed, key=lambda i: (-scores[i], i))
    return sorted(order[:k])


@settings(deadline=None)
@given(scores=rows, data=st.data())
def test_top_k_prefers_the_lower_index_on_ties(scores, data):
    k = data.draw(st.integers(0, len(scores)))
    found = top_k(torch.tensor([scores], dtype=torch.float), k)
    assert found[0].tolist() == best(scores, k, range(len(scores)))


def test_masked_entries_come_when_nothing_else_is_left():
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0]])
    mask = torch.tensor([[False, True, False, True]])
    assert top_k(scores, 2, mask)[0].tolist() == [1, 3]
    assert top_k(scores, 3, mask)[0].tolist() == [0, 1, 3]


@settings(deadline=None)
@given(scores=rows, data=st.data())
def test_top_mask_takes_a_number_per_row(scores, data):
    n = len(scores)
    many = data.draw(st.lists(st.integers(0, n + 2), min_size=1, max_size=3))
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    found = top_mask(
        torch.tensor(scores, dtype=torch.float).expand(len(many), n),
        torch.tensor(many),
        mask.expand(len(many), n),
    )
    allowed = mask.nonzero()[:, 0].tolist()
    for row, k in zip(found, many, strict=True):
        assert row.nonzero()[:, 0].tolist() == best(scores, k, allowed)
