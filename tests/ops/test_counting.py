"""Counters along a prompt against counting by hand."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.ops.counting import counters


@given(st.lists(st.tuples(st.integers(-1, 3), st.booleans()), min_size=1, max_size=20))
def test_counters_are_what_counting_gives(columns):
    frame = torch.tensor([[f for f, _ in columns]])
    valid = torch.tensor([[v for _, v in columns]])
    tokens = words = frames = 0
    expected, before = [], -1
    for number, real in columns:
        if real and number < 0:
            words += 1
        if real and number >= 0 and number != before:
            frames += 1
        expected.append((tokens if real else max(0, tokens - 1), words, frames))
        tokens += real
        before = number
    found = torch.stack(counters(frame, valid), -1)[0].tolist()
    assert found == [list(row) for row in expected]
