import pytest
import torch
from transformers.models.glm.modeling_glm import apply_rotary_pos_emb as interleaved
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as halves

from foveate.ops.phases import laid_out, paired, phases


def rotation(function, angle):
    cos, sin = angle.cos(), angle.sin()
    return lambda x: function(x, x[:, :0], cos, sin)[0]


@pytest.fixture
def angle():
    half = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0)) * 9
    return torch.cat([half, half], -1)


def test_products_are_those_of_what_was_rotated(angle):
    rotate = rotation(halves, angle)
    generator = torch.Generator().manual_seed(1)
    x, row = (torch.randn(2, 3, n, 8, generator=generator) for n in (5, 1))
    turned = phases(rotate, x[:, :1])
    assert turned.shape == (2, 1, 5, 4)
    mine = laid_out(paired(row)) @ laid_out(paired(x) * turned).mT
    torch.testing.assert_close(mine, row @ rotate(x).mT, atol=1e-5, rtol=1e-5)


def test_other_pairs_and_types_are_left_to_the_model(angle):
    x = torch.zeros(2, 1, 5, 8)
    assert phases(rotation(interleaved, angle), x) is None
    assert phases(rotation(halves, angle), x.bfloat16()) is None
    # Half of the channels turn: pairs lie closer than half of all.
    assert phases(rotation(interleaved, angle[..., :4]), x) is None
