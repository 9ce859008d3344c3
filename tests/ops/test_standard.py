import torch

from foveate.ops.standard import standardised


def test_rows_have_mean_0_and_variance_1_where_they_count():
    x = torch.randn(2, 9) * 5 + 3
    where = torch.arange(9) < torch.tensor([[9], [4]])
    out = standardised(x, where)
    assert torch.allclose(out[0], (x[0] - x[0].mean()) / x[0].std(correction=0), atol=1e-5)
    assert torch.allclose(out[1, :4].square().mean(), torch.ones(()), atol=1e-5)
    assert not out[1, 4:].any()


def test_a_flat_row_stays_flat():
    assert not standardised(torch.full((1, 5), 2.0), torch.ones(1, 5, dtype=torch.bool)).any()
