"""A row of padding only changes nothing in the rows beside it."""

from __future__ import annotations

import pytest
import torch

import foveate
from tests.engine.running import close, generate
from tests.families import zoo


@pytest.mark.parametrize("slug", ["divprune", "fastv", "dymu", "aim"])
@pytest.mark.parametrize("at", [0, 2])
def test_a_row_of_padding_only_leaves_its_neighbours_as_they_are(slug, at):
    model, pair = zoo.model("llava"), zoo.pair("llava", "image")
    more = dict(pair)
    for name in ("input_ids", "attention_mask"):
        rows = list(pair[name])
        rows.insert(at, torch.zeros_like(rows[0]))
        more[name] = torch.stack(rows)
    with foveate.attach(model, foveate.create(slug, keep=8)):
        (tokens, logits), expected = generate(model, more, 4), generate(model, pair, 4)
    others = [b for b in range(3) if b != at]
    assert close((tokens[others], logits[others]), expected)
