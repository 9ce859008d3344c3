"""`attach` takes models only whose forward reads reduced visual tokens."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers as hf

import foveate
from tests.families import zoo
from tests.families.halves import Half


class OlderInner(hf.LlavaModel):
    """A model as transformers had it before 5.18, and as copies of it still are."""

    def forward(self, input_ids=None, pixel_values=None, attention_mask=None, **kwargs):
        return super().forward(input_ids, pixel_values, attention_mask, **kwargs)


class OlderOuter(hf.LlavaForConditionalGeneration):
    def forward(self, input_ids=None, pixel_values=None, attention_mask=None, **kwargs):
        return super().forward(input_ids, pixel_values, attention_mask, **kwargs)


class Logged(hf.LlavaForConditionalGeneration):
    """A model of one's own that hands everything on."""

    calls = 0

    def forward(self, *args, **kwargs):
        self.calls += 1
        return super().forward(*args, **kwargs)


def of_class(outer: type, inner: type = hf.LlavaModel):
    """The tiny LLaVA with other classes and the same weights."""
    model = copy.deepcopy(zoo.model("llava"))
    model.__class__, model.model.__class__ = outer, inner
    return model


@pytest.mark.parametrize(
    ("outer", "inner", "named"),
    [
        (hf.LlavaForConditionalGeneration, OlderInner, "OlderInner"),
        (OlderOuter, hf.LlavaModel, "OlderOuter"),
    ],
    ids=["inner", "outer"],
)
def test_a_model_that_would_swallow_the_tokens_is_refused(outer, inner, named):
    model = of_class(outer, inner)
    with pytest.raises(foveate.UnsupportedModel) as caught:
        foveate.attach(model, Half())
    said = str(caught.value)
    assert f"{named}.forward has no argument mm_encoder_outputs" in said and "5.18" in said
    assert hf.__version__ in said and "_foveate" not in model.model.__dict__


def test_a_forward_that_hands_everything_on_is_taken():
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    with torch.no_grad(), foveate.attach(zoo.model("llava"), Half()):
        expected = zoo.model("llava")(**inputs).logits
    model = of_class(Logged)
    with torch.no_grad(), foveate.attach(model, Half()):
        assert torch.equal(model(**inputs).logits, expected)
    assert model.calls == 1
