"""What an integer `keep` counts: an image or video, or the visual item of the family."""

from __future__ import annotations

import pytest

import foveate
from foveate.errors import BudgetError

from . import zoo


@pytest.mark.parametrize(
    ("name", "kept"),
    # Idefics3 and SmolVLM take the images of a prompt together, InternVL each tile by itself.
    [("llava", [3, 3]), ("internvl", [3, 3]), ("idefics3", [3]), ("smolvlm", [3])],
)
def test_an_integer_keep_counts_per_visual_item(name, kept):
    model = zoo.model(name)
    samples = [zoo.sample(name, "image", i) for i in (0, 1)]
    inputs = zoo.batch(name, [zoo.joined(name, *samples)])
    with foveate.attach(model, foveate.DivPrune(keep=3)) as attached:
        model(**inputs)
    assert attached.report.tokens_out == kept
    total = sum(n for sample in samples for n in sample.items)
    with foveate.attach(model, foveate.DivPrune(keep=total + 1)):
        with pytest.raises(BudgetError, match="tokens of this visual item"):
            model(**inputs)
