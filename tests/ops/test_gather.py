import pytest
import torch

from foveate.ops.gather import rows_at, rows_summed

SHAPES = [(3, 7, 4), (3, 2, 7, 4), (1, 7, 4), (1, 2, 7, 4), (3, 2, 2, 7, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_those_that_gather_finds(shape):
    x, index = torch.randn(shape), torch.randint(0, 7, (3, 5))
    wide = index.view(3, *[1] * (len(shape) - 3), 5, 1).expand(3, *shape[1:-2], 5, 4)
    expected = x.expand(3, *shape[1:]).gather(-2, wide)
    assert torch.equal(rows_at(x, index), expected)
    moved = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert torch.equal(rows_at(moved, index.T.contiguous().T), expected)


def test_gradients_add_up_where_rows_repeat():
    x = torch.zeros(1, 4, 2, requires_grad=True)
    rows_at(x, torch.tensor([[1, 1, 3]])).sum().backward()
    assert x.grad[0, :, 0].tolist() == [0, 2, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_one_slot_are_summed(dtype):
    x, slot = torch.randn(2, 9, 3).to(dtype), torch.randint(-1, 4, (2, 9))
    wide = slot.masked_fill(slot < 0, 4)[..., None].expand_as(x)
    expected = x.new_zeros(2, 5, 3).scatter_add(1, wide, x)[:, :4]
    assert torch.equal(rows_summed(x, slot, 4), expected)
