import torch

from foveate.ops.select import columns_of, soft_top_k, top_mask


def test_columns_of_a_mask():
    mask = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    index, real = columns_of(mask)
    assert index[0].tolist() == [1, 3, 4] and real.tolist()[0] == [True] * 3
    assert index[1, 0] == 0 and real[1].tolist() == [True, False, False]
    assert not real[2].any()
    assert columns_of(mask[2:])[0].shape == (1, 1)


def test_soft_choice_sums_to_its_budget_and_hardens():
    torch.manual_seed(0)
    scores, mask = torch.randn(3, 20), torch.rand(3, 20) > 0.2
    k = torch.tensor([3, 8, 30])
    m = soft_top_k(scores, k, mask, 0.5)
    inside = (m * mask).sum(1)
    assert torch.allclose(inside[:2], k[:2].float(), atol=1e-3)
    assert (m[2] == 1).all() and (m[~mask] == 1).all()
    hard = soft_top_k(scores, k, mask, 1e-4)
    assert torch.equal((hard > 0.5) & mask, top_mask(scores, k, mask))


def test_gradients_reach_the_scores():
    scores = torch.randn(1, 9, requires_grad=True)
    m = soft_top_k(scores, torch.tensor([4]), torch.ones(1, 9, dtype=torch.bool), 0.5)
    m.square().sum().backward()
    assert (scores.grad.abs() > 1e-5).sum() > 3
