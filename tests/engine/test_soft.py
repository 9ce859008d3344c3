"""What training needs of the engine: soft choices, places of tokens, an early word on weights."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import foveate
from foveate.errors import MissingWeights
from foveate.method import Method
from foveate.parts import LayersPart, Soft
from foveate.trained import TrainedMethod
from tests.families import zoo


def test_attach_says_at_once_that_parts_are_missing():
    class Untold(TrainedMethod):
        slug = "untold"

    with pytest.raises(MissingWeights, match="layers 5, width 32"):
        foveate.attach(zoo.model("llava"), Untold())
    with pytest.raises(MissingWeights):
        foveate.attach(zoo.model("llava"), foveate.create("fastv") + Untold())


@dataclass(frozen=True, kw_only=True, repr=False)
class Fading(Method, LayersPart):
    """Every second visual token goes at boundary k: softly, or for real."""

    slug = "fading"

    # What is weighed down keeps its place: so must what stays where it goes.
    positions: str = "original"
    k: int = 2
    weight: object = None

    def boundaries(self, layers):
        return (self.k,)

    def at_boundary(self, k, layers, state):
        stays = ~state.visual | (state.visual.long().cumsum(1) % 2 == 0)
        if self.weight is None:
            return stays
        return Soft((~stays).float() * self.weight)


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3"])
def test_to_weigh_nothing_is_to_be_gone(name, k):
    model = zoo.model(name)
    batch = zoo.batch(name, [zoo.sample(name, "image", i) for i in range(2)])
    with torch.no_grad():
        with foveate.attach(model, Fading(k=k)):
            gone = model(**batch, use_cache=False).logits[:, -3:]
        with foveate.attach(model, Fading(k=k, weight=torch.tensor(-1e4))) as att:
            soft = model(**batch, use_cache=False).logits[:, -3:]
            assert att.report.tokens_out == att.report.tokens_in
        with foveate.attach(model, Fading(k=k, weight=torch.tensor(-0.5))):
            half = model(**batch, use_cache=False).logits[:, -3:]
    if name == "gemma3":
        # Its pictures see all of themselves, and what is weighed down goes on seeing.
        assert not torch.allclose(half, gone, atol=1e-3)
        return
    assert torch.allclose(soft, gone, atol=1e-4)
    assert not torch.allclose(half, gone, atol=1e-3)


def test_weights_of_keys_get_gradients_and_no_decode():
    model = zoo.model("llava")
    batch = zoo.batch("llava", [zoo.sample("llava", "image")])
    weight = torch.tensor(-0.5, requires_grad=True)
    with foveate.attach(model, Fading(weight=weight)):
        labels = batch["input_ids"].clone()
        model(**batch, labels=labels, use_cache=False).loss.backward()
        assert weight.grad.abs() > 1e-6
        cache = model(**batch, use_cache=True).past_key_values
        with pytest.raises(foveate.UnsupportedCall, match="soft"):
            model(input_ids=batch["input_ids"][:, -1:], past_key_values=cache)
    model.zero_grad()


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl"])
def test_places_are_those_of_the_original_grid(name):
    """Also behind a boundary that dropped some."""
    model = zoo.model(name)
    batch = zoo.batch(name, [zoo.sample(name, "image", i) for i in range(2)])
    seen = {}

    @dataclass(frozen=True, kw_only=True, repr=False)
    class Looking(Fading):
        def boundaries(self, layers):
            return (1, 2)

        def at_boundary(self, k, layers, state):
            seen[k] = (state.visual, *state.places())
            return super().at_boundary(k, layers, state) if k == 1 else None

    with foveate.attach(model, Looking()) as att, torch.no_grad():
        model(**batch)
        traces = att.report.traces
    visual, place, extent = seen[1]
    layouts = torch.cat([trace.layout.position for trace in traces])
    assert torch.equal(place[visual], layouts)
    assert (place[~visual] == -1).all() and not extent[~visual].any()
    assert (place[visual] < extent[visual]).all()
    later, kept, _ = seen[2]
    survivors = [t.layout.position[t.index] for t in traces]
    assert torch.equal(kept[later], torch.cat(survivors))
