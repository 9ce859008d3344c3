import torch
from torch.nn.functional import cosine_similarity

from foveate.ops.nearest import nearest, spread


def test_spread_steps_evenly_from_zero():
    assert spread(12, 3).tolist() == [0, 4, 8]
    assert spread(14, 4).tolist() == [0, 3, 6, 9]
    assert spread(2, 5).tolist() == [0, 1]
    assert spread(5, 0).tolist() == []


def test_nearest_is_the_largest_cosine():
    x, targets = torch.randn(2, 9, 4), torch.randn(2, 3, 4)
    found = nearest(x, targets)
    for b in range(2):
        for i in range(9):
            likeness = cosine_similarity(x[b, i][None], targets[b], dim=-1)
            assert found[b, i] == likeness.argmax()
