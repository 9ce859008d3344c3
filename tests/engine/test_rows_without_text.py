"""Prompts that are a picture only, and rows of padding that fill up a batch, under every method."""

from __future__ import annotations

import pytest
import torch

import foveate
from foveate.method import registered
from tests.engine.running import generate
from tests.families import zoo
from tests.methods.made import made

SMALL = {"visionzip": {"keep": 0.5}}
# They may drop all visual tokens, of which nothing is left without text.
EMPTYING = ("aim", "dyvte")


def sample():
    return zoo.sample("llava", "image", 0)


@pytest.mark.parametrize("slug", registered())
def test_a_picture_only_and_a_row_of_padding(slug):
    model = zoo.model("llava")
    whole = sample()
    bare = zoo.Sample([zoo.IMAGE] * 16, None, whole.inputs, whole.items)
    one = zoo.batch("llava", [whole])
    filled = dict(one)
    for name in ("input_ids", "attention_mask"):
        filled[name] = torch.cat([one[name], torch.zeros_like(one[name])])
    try:
        attachment = foveate.attach(model, made(slug, **SMALL.get(slug, {})))
    except foveate.FoveateError:
        return
    with attachment:
        if slug in EMPTYING:
            with pytest.raises(foveate.UnsupportedCall, match="without text"):
                generate(model, zoo.batch("llava", [bare]), 2)
        else:
            try:
                alone = generate(model, zoo.batch("llava", [bare]), 2)[1]
                both = generate(model, zoo.batch("llava", [whole, bare]), 2)[1]
                assert (both[1:] - alone).abs().max() < 2e-4
            except foveate.UnsupportedCall:
                assert slug in ("dymu", "yopo")
        right = generate(model, one, 2)[1]
        assert (generate(model, filled, 2)[1][:1] - right).abs().max() < 2e-4
