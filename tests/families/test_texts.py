"""Language models that do something else than Llama's between a layer's input and its softmax."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import foveate
from foveate.method import Method
from foveate.parts import BoundaryState, LayersPart
from foveate.signals import DecoderAttention, DecoderHeads, Need

from . import zoo
from .halves import Half, HalfAt
from .running import assert_equal, generate
from .texts import TEXTS, model

STEPS = 6
every = pytest.mark.parametrize("text", TEXTS)


@dataclass(frozen=True, kw_only=True, repr=False)
class Look(Method, LayersPart):
    """Keep all, and note at every boundary what layers are said to attend to."""

    slug = "look"

    ahead: dict[int, Tensor] = field(default_factory=dict, hash=False)
    heads: dict[int, Tensor] = field(default_factory=dict, hash=False)
    behind: dict[int, Tensor] = field(default_factory=dict, hash=False)
    followed: dict[int, Tensor] = field(default_factory=dict, hash=False)

    def needs_in(self, layers: int) -> tuple[Need, ...]:
        return (*(DecoderAttention(i) for i in range(layers - 1)), DecoderHeads())

    def boundaries(self, layers: int) -> tuple[int, ...]:
        return tuple(range(layers))

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> None:
        rows = torch.stack([state.last - 1, state.last], 1)
        self.ahead[k] = state.attention(rows)
        self.heads[k] = state.heads().rows(rows)
        if k:
            self.behind[k - 1] = state.signals[DecoderAttention(k - 1)]
            self.followed[k - 1] = state.signals[DecoderHeads()].rows(rows)


def alone(family: str = "llava") -> list[dict[str, Any]]:
    return [zoo.batch(family, [zoo.sample(family, "image", i)]) for i in (0, 1)]


@every
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_what_is_said_of_attention_is_what_the_layer_gives(text, kernel):
    m = model(text)
    capped = getattr(m.config.text_config, "attn_logit_softcapping", None) is not None
    if kernel == "sdpa" and (capped or not m.get_decoder()._supports_sdpa):
        # Some versions of transformers run capped logits through sdpa, which doesn't cap them.
        kernel = "eager"
    batch = zoo.pair("llava", "image")
    m.set_attn_implementation("eager")
    with torch.no_grad():
        seen = m(**batch, output_attentions=True).attentions
    m.set_attn_implementation(kernel)
    look = Look()
    with foveate.attach(m, look), torch.no_grad():
        m(**batch)
    for i, own in enumerate(seen):
        for said in (look.ahead[i], look.heads[i], look.followed.get(i)):
            assert said is None or torch.allclose(said, own[:, :, -2:], atol=1e-6), i
        if i in look.behind:
            assert torch.allclose(look.behind[i], own[:, :, -1], atol=1e-6), i


@every
def test_all_is_bare_and_a_batch_is_its_samples(text):
    m = model(text)
    inputs, both = alone(), zoo.pair("llava", "image")
    bare = [generate(m, one, STEPS) for one in inputs]
    methods = HalfAt(keep=1.0), HalfAt(), Half(), foveate.PyramidDrop(), foveate.VistaLLaMA()
    for method in methods:
        with foveate.attach(m, method):
            single = [generate(m, one, STEPS) for one in inputs]
            joint = generate(m, both, STEPS)
        for i in (0, 1):
            assert_equal(joint.row(i), single[i].row(0))
            if method is methods[0]:
                assert_equal(single[i].row(0), bare[i].row(0))


@pytest.mark.parametrize("text", ["exaone4", "mistral", "gpt_oss"])
def test_all_is_bare_in_another_family(text):
    m = model(text, "internvl")
    for one in alone("internvl"):
        bare = generate(m, one, STEPS)
        for method in (HalfAt(keep=1.0), foveate.PyramidDrop(keep=1.0)):
            with foveate.attach(m, method):
                assert_equal(generate(m, one, STEPS).row(0), bare.row(0))


def test_what_was_never_rotated_is_not_turned_back():
    """Without rotation anywhere, leaving it out changes nothing."""
    m = model("no_positions")
    for one in alone():
        bare = generate(m, one, STEPS)
        with foveate.attach(m, foveate.VistaLLaMA()):
            assert_equal(generate(m, one, STEPS).row(0), bare.row(0))


@every
def test_new_tokens_see_behind_a_boundary_what_they_would_see_without_a_cache(text):
    """Windows are counted in the columns of the prompt, dropped ones included."""
    m, inputs = model(text), alone()[0]
    with foveate.attach(m, HalfAt()), torch.no_grad():
        run = generate(m, inputs, STEPS)
        ids = torch.cat([inputs["input_ids"], run.tokens], 1)
        longer = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        whole = m(**longer, use_cache=False).logits[:, -STEPS - 1 : -1]
    assert torch.allclose(run.logits, whole, atol=1e-4)


@every
def test_places_of_merged_tokens_are_seen_alike_in_prompts_and_by_new_tokens(text):
    """Windows count places, of columns that a cache still holds; some layers rotate nothing."""
    m, sample = model(text), zoo.sample("llava", "image", 0)
    new = torch.tensor([zoo.words(3, 12)])
    found = []
    with torch.no_grad(), foveate.attach(m, foveate.DyMU(keep=8)):
        for steps, padding in ((0, 0), (1, 0), (5, 0), (1, 3)):
            given = zoo.batch("llava", [sample], padding)
            ids = torch.cat([given.pop("input_ids"), new], 1)
            mask = torch.cat([given.pop("attention_mask"), torch.ones_like(new)], 1)
            at = (mask.cumsum(1) - 1).clamp(min=0)
            ends = range(ids.shape[1] - 12, ids.shape[1], steps) if steps else ()
            begin, logits, cache = 0, [], None
            for end in (*ends, ids.shape[1]):
                columns = {"input_ids": ids, "position_ids": at}
                now = {name: x[:, begin:end] for name, x in columns.items()}
                out = m(**now, **given, attention_mask=mask[:, :end], past_key_values=cache)
                begin, given, cache = end, {}, out.past_key_values
                logits.append(out.logits)
            found.append(torch.cat(logits, 1)[:, -12:])
    for logits in found[1:]:
        torch.testing.assert_close(logits, found[0], rtol=0, atol=2e-4)
