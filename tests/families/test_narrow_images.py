"""Images so narrow that the padding covers every row or column of the stitched crops."""

from __future__ import annotations

import pytest
import torch
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

import foveate

from . import zoo

TILED = ("llava_next", "llava_next_video", "llava_onevision")


def narrow(name: str, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """A prompt with one image of `size` (height, width)."""
    model = zoo.model(name)
    views = image_size_to_num_patches(list(size), model.config.image_grid_pinpoints, 56)
    inputs = {
        "pixel_values": zoo.noise(0, 1, views, 3, 56, 56),
        "image_sizes": torch.tensor([size]),
    }
    with torch.no_grad():
        features = model.model.get_image_features(**inputs, return_dict=True).pooler_output
    n = len(features[0])
    ids = [*zoo.words(0, 3), *[zoo.IMAGE] * n, *zoo.words(9, 6)]
    return zoo.batch(name, [zoo.Sample(ids, None, inputs, (n,))])


# The overview has 16 tokens. A tall image keeps the newlines of its 4 rows.
@pytest.mark.parametrize(("size", "tokens"), [((8, 1600), 16), ((1600, 8), 20)])
@pytest.mark.parametrize("name", TILED)
def test_a_narrow_image_is_answered_as_by_the_bare_model(name, size, tokens):
    model, inputs = zoo.model(name), narrow(name, size)
    settings = {"max_new_tokens": 6, "do_sample": False}
    expected = model.generate(**inputs, **settings)
    with foveate.attach(model, foveate.DivPrune(keep=1.0)) as attached:
        assert torch.equal(model.generate(**inputs, **settings), expected)
    assert attached.report.tokens_in == attached.report.tokens_out == [tokens]
    with foveate.attach(model, foveate.DivPrune(keep=5)) as attached:
        model.generate(**inputs, **settings)
    assert attached.report.tokens_out == [5]
