import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.ops.unmerging import averaged, stood, visible


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_copies_are_averaged_plainly_and_places_of_none_left_out():
    mapping = torch.tensor([[-1, 0, 2, 2, 0, 2]])
    x = random(1, 6, 3)
    out = averaged(x, mapping, 4)
    torch.testing.assert_close(out[0, 0], (x[0, 1] + x[0, 4]) / 2)
    torch.testing.assert_close(out[0, 2], (x[0, 2] + x[0, 3] + x[0, 5]) / 3)
    assert not out[0, 1].any() and not out[0, 3].any()
    heads = random(1, 2, 4, 5)
    back = averaged(stood(heads, mapping).transpose(1, 2).flatten(2), mapping, 4)
    torch.testing.assert_close(back[0, 2], heads.transpose(1, 2).flatten(2)[0, 2])


@settings(deadline=None, max_examples=40)
@given(
    unique=st.integers(2, 7),
    more=st.integers(0, 6),
    prefix=st.booleans(),
    window=st.integers(1, 9) | st.none(),
    hide=st.integers(0, 6) | st.none(),
    seed=st.integers(0, 10**6),
)
def test_virtual_rows_see_what_stands_before_them(unique, more, prefix, window, hide, seed):
    g = torch.Generator().manual_seed(seed)
    mapping = torch.randint(-1, unique, (1, unique + more), generator=g)
    rank = torch.arange(unique)[None]
    seen = torch.ones(1, 1, unique, unique, dtype=torch.bool)
    seen = seen if prefix else seen.tril()
    if hide is not None:
        seen[..., min(hide, unique - 1)] = False
    rows = mapping.clamp(min=0)
    window = None if prefix else window
    found = visible(seen, mapping, rows, (rank, rank), window)[0, 0]
    m = mapping[0].tolist()
    for i, u in enumerate(rows[0].tolist()):
        looks = bool(seen[0, 0, u, u + 1 :].any())
        for j, v in enumerate(m):
            if v < 0:
                assert not found[i, j]
            elif window is not None:
                assert found[i, j] == (0 <= i - j < window and u - v < window)
            elif j <= i:
                assert found[i, j] == bool(v > u or seen[0, 0, u, v])
            else:
                assert found[i, j] == (looks and v >= u and bool(seen[0, 0, u, v]))
