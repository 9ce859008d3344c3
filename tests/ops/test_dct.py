import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.ops.dct import dct_matrix, idct_matrix, low_pass

norms = pytest.mark.parametrize("norm", ["ortho", None])


def both_sides(x, matrix, norm):
    """A transform of the rows and columns of x (..., H, W)."""
    return matrix(x.shape[-2], norm) @ x @ matrix(x.shape[-1], norm).T


@norms
@settings(deadline=None, max_examples=30)
@given(h=st.integers(1, 9), w=st.integers(1, 9))
def test_there_and_back(norm, h, w):
    x = torch.randn(2, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(h * w))
    spectrum = both_sides(x, dct_matrix, norm)
    assert torch.allclose(both_sides(spectrum, idct_matrix, norm), x)
    if norm == "ortho":
        assert torch.allclose(spectrum.norm(), x.norm())


def test_the_plain_transform_is_its_formula():
    x = torch.randn(7, dtype=torch.float64)
    j = torch.arange(7, dtype=torch.float64)
    for k in range(7):
        expected = 2 * (x * torch.cos(torch.pi * (2 * j + 1) * k / 14)).sum()
        assert torch.allclose((dct_matrix(7, None) @ x)[k], expected)


@norms
def test_a_low_pass_is_the_cropped_spectrum_seen_as_a_smaller_grid(norm):
    x = torch.randn(3, 6, 9, 4, dtype=torch.float64)
    spectrum = both_sides(x.movedim(-1, 1), dct_matrix, norm)
    small = both_sides(spectrum[..., :4, :5], idct_matrix, norm).movedim(1, -1).flatten(1, 2)
    assert torch.allclose(low_pass(x, [5] * 4, norm), small)
    mixed = low_pass(x, [5, 5, 4, 4], norm)
    assert torch.allclose(mixed[:, :10], low_pass(x, [5] * 4, norm)[:, :10])
    assert torch.allclose(mixed[:, 10:], low_pass(x, [4] * 4, norm)[:, 8:])


def test_half_precision_is_computed_in_single():
    x = torch.randn(1, 4, 4, 2).half()
    assert low_pass(x, [2, 2]).dtype == torch.float32
    assert torch.equal(low_pass(x, [2, 2]), low_pass(x.float(), [2, 2]))
