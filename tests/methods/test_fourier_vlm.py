import pytest
import torch

from foveate.errors import BudgetError, InvalidParameter
from foveate.families.base import raster
from foveate.methods.tokens.fourier_vlm import FourierVLM
from foveate.ops.pool import cell_rows
from foveate.signals import ProjectorInput, Signals
from foveate.tokens import Grid


def compressed(method, layout, x):
    tokens = layout.tokens(x)
    signals = Signals({ProjectorInput(): x})
    return method.reduce(tokens, signals, method.count(tokens.grid)).features


def picture(h, w, seed=0):
    return torch.randn(2, h * w, 5, generator=torch.Generator().manual_seed(seed))


def test_presets_of_the_released_models():
    grid = Grid(1, 24, 24, (576,))
    assert [FourierVLM(reserve=r).count(grid) for r in (16, 12, 8, 6)] == [256, 144, 64, 36]
    assert [cell_rows(24, 24, r * r) for r in (16, 12, 8, 6)] == [[r] * r for r in (16, 12, 8, 6)]
    assert FourierVLM(ratio=2 / 3).count(Grid(2, 6, 9, (54, 54))) == 2 * 4 * 6


@pytest.mark.parametrize("norm", ["ortho", None])
def test_constants_stay_or_grow_by_the_documented_gain(norm):
    layout, x = raster(1, 6, 8), torch.full((1, 48, 2), 3.0)
    assert torch.allclose(compressed(FourierVLM(keep=12, norm=norm), layout, x), x[:, :12])
    grown = compressed(FourierVLM(keep=12, norm=norm, preserve_mean=False), layout, x)
    assert torch.allclose(grown, x[:, :12] * (2 if norm else 4))


def test_one_token_is_the_mean():
    x = picture(5, 7)
    one = compressed(FourierVLM(keep=1), raster(1, 5, 7), x)
    assert torch.allclose(one, x.mean(1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize("keep", [12, 10])
def test_a_mirrored_picture_gives_mirrored_tokens(keep):
    layout, x = raster(1, 6, 8), picture(6, 8)
    widths = cell_rows(6, 8, keep)
    mirrored = x.view(2, 6, 8, 5).flip(2).flatten(1, 2)
    straight = compressed(FourierVLM(keep=keep), layout, x).split(widths, 1)
    turned = compressed(FourierVLM(keep=keep), layout, mirrored).split(widths, 1)
    for a, b in zip(straight, turned, strict=True):
        assert torch.allclose(a.flip(1), b, atol=1e-5)


def test_is_linear_and_lets_gradients_through():
    layout, x, y = raster(1, 6, 6), picture(6, 6), picture(6, 6, 1)
    method = FourierVLM(keep=11)
    both = compressed(method, layout, 2 * x - y)
    parts = 2 * compressed(method, layout, x) - compressed(method, layout, y)
    assert torch.allclose(both, parts, atol=1e-5)
    x.requires_grad_()
    compressed(method, layout, x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_sizes_that_can_not_be_are_refused():
    with pytest.raises(InvalidParameter, match="norm='l2'"):
        FourierVLM(norm="l2")
    with pytest.raises(InvalidParameter, match="reserve=0"):
        FourierVLM(reserve=0)
    with pytest.raises(InvalidParameter, match="ratio=1.5"):
        FourierVLM(ratio=1.5)
    with pytest.raises(BudgetError, match="reserve=8 is out of range: .* at most .6"):
        FourierVLM(reserve=8).count(Grid(1, 6, 6, (36,)))
    with pytest.raises(BudgetError, match="tiled"):
        FourierVLM(ratio=0.5).count(Grid(2, 8, 8, (16,) * 5, 8))
