"""Codes of few bits: exact in storage, within half a step in value, as small as promised."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.ops.packed import pack_chosen, pack_tokens
from foveate.ops.quantise import CHANNEL, TOKEN, pack, quantise, unpack

BITS = (2, 4, 8)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=40)
@given(bits=st.sampled_from(BITS), channels=st.integers(1, 19), seed=st.integers(0, 99))
def test_packing_loses_nothing(bits, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (5, channels), generator=generator, dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (5, -(-channels * bits // 8))
    assert torch.equal(unpack(packed, bits, channels), codes)


def test_the_first_half_of_the_channels_lies_in_the_low_bits():
    codes = torch.tensor([[1, 2, 3, 0]], dtype=torch.uint8)
    assert pack(codes, 4).tolist() == [[1 + 16 * 3, 2 + 16 * 0]]
    assert pack(codes, 2).tolist() == [[1 + 4 * 2 + 16 * 3]]


@settings(deadline=None, max_examples=40)
@given(
    bits=st.sampled_from(BITS),
    over=st.sampled_from((CHANNEL, TOKEN)),
    n=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_errors_are_at_most_half_a_step(bits, over, n, seed):
    x = noise(seed, 2, n, 6) * 3
    codes = quantise(x, bits, over)
    assert ((codes.read() - x).abs() <= codes.step / 2 + 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_flat_range_comes_back(dtype):
    x = torch.full((2, 4, 8), 0.3, dtype=dtype)
    for over in (CHANNEL, TOKEN):
        assert torch.equal(quantise(x, 2, over).read(), x)
    zero = torch.zeros(1, 2, 3, 8, dtype=dtype)
    valid = torch.ones(1, 3, dtype=torch.bool)
    assert torch.equal(pack_tokens(zero, zero, valid, valid, (4, 2)).read()[1], zero)


def test_sixteen_bits_are_the_numbers_themselves():
    x = noise(0, 2, 5, 8)
    assert torch.equal(quantise(x, 16, CHANNEL).read(), x)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 99), n=st.integers(1, 12), share=st.floats(0, 1))
def test_order_comes_back_and_value_errors_are_bounded(seed, n, share):
    """Channel scales count: half a step of the scaled value, times the scale."""
    keys, values = noise(seed, 2, 3, n, 8), noise(seed + 1, 2, 3, n, 8)
    generator = torch.Generator().manual_seed(seed)
    important = torch.rand(2, n, generator=generator) < share
    valid = torch.ones(2, n, dtype=torch.bool)
    valid[1, : n // 2] = False
    packed = pack_tokens(keys, values, valid, important, (8, 4))
    k, v = packed.read()
    for b, row in enumerate(packed.rows):
        for group, mask in enumerate((important[b] & valid[b], ~important[b] & valid[b])):
            if not mask.any():
                continue
            off_k, off_v = ((x[b] - y[b]).abs()[:, mask] for x, y in ((k, keys), (v, values)))
            assert (off_k <= row.keys[group].step / 2 + 1e-5).all()
            assert (off_v <= row.values[group].step / 2 * row.scale + 1e-5).all()


def test_rows_of_a_batch_are_packed_as_alone_and_taken_in_any_order():
    keys, values = noise(0, 2, 2, 9, 8), noise(1, 2, 2, 9, 8)
    valid = torch.arange(9) >= torch.tensor([[0], [4]])
    important = torch.arange(9).expand(2, -1) % 2 == 0
    both = pack_tokens(keys, values, valid, important, (4, 2))
    k, v = both.read()
    alone = pack_tokens(
        keys[1:, :, 4:], values[1:, :, 4:], valid[1:, 4:], important[1:, 4:], (4, 2)
    )
    torch.testing.assert_close((k[1:, :, 4:], v[1:, :, 4:]), alone.read())
    swapped = both.take(torch.tensor([1, 0, 1]))
    assert torch.equal(swapped.read()[0][[1, 2]][:, :, 4:], k[:, :, 4:][[0, 1]])
    # The codes of a sample that two beams share are there once.
    assert swapped.nbytes == both.nbytes + 9


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 99), n=st.integers(1, 12), bits=st.sampled_from([(8, 4), (4, 2), (16, 16)])
)
def test_codes_give_what_the_numbers_that_they_stand_for_give(seed, n, bits):
    keys, values = noise(seed, 2, 3, n, 8), noise(seed + 1, 2, 3, n, 8)
    generator = torch.Generator().manual_seed(seed)
    important = torch.rand(2, n, generator=generator) < 0.5
    valid = torch.ones(2, n, dtype=torch.bool)
    valid[1, : n // 2] = False
    packed = pack_tokens(keys, values, valid, important, bits)
    k, v = packed.read()
    rows, weights = noise(seed + 2, 2, 3, 2, 8), noise(seed + 3, 2, 3, 2, n)
    products = torch.full((2, 3, 2, n), float("inf"))
    packed.products_into(products, rows)
    order = (valid.long() + (valid & important)).argsort(dim=1, descending=True, stable=True)
    for b in range(2):
        own = order[b, : int(valid[b].sum())]
        inside = products[b, ..., : len(own)]
        assert torch.isinf(products[b, ..., len(own) :]).all()
        torch.testing.assert_close(inside, rows[b] @ k[b, :, own].mT, atol=1e-4, rtol=1e-4)
        mixed = weights[b, ..., : len(own)] @ v[b, :, own]
        torch.testing.assert_close(packed.mixed(weights)[b], mixed, atol=1e-4, rtol=1e-4)


def test_bytes_are_the_mix_of_bits_and_what_reading_takes():
    n, p, channels = 50, 20, 2 * 64
    x = noise(0, 1, 2, n, 64)
    valid = torch.ones(1, n, dtype=torch.bool)
    important = torch.arange(n)[None] < p
    packed = pack_tokens(x, x, valid, important, (4, 2))
    codes = 2 * (p * channels * 4 + (n - p) * channels * 2) // 8
    key_ranges, value_ranges, scale = 2 * 2 * channels, 2 * n, channels
    assert packed.nbytes == codes + 4 * (key_ranges + value_ranges + scale) + n


def test_only_chosen_columns_are_held():
    keys, values = noise(0, 2, 2, 7, 8), noise(1, 2, 2, 7, 8)
    chosen = torch.zeros(2, 7, dtype=torch.bool)
    chosen[0, [1, 4, 6]] = chosen[1, [2, 3]] = True
    packed = pack_chosen(keys, values, chosen, 16)
    assert packed.index[0].tolist() == [1, 4, 6] and packed.index[1, :2].tolist() == [2, 3]
    k, v = packed.read()
    assert torch.equal(k[0], keys[0, :, [1, 4, 6]]) and torch.equal(v[1, :, :2], values[1, :, 2:4])
    assert packed.nbytes == 2 * 5 * 16 * 4 + 6
