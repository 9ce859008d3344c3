"""Vista-LLaMA's one kernel against products that are chosen pair by pair."""

from dataclasses import dataclass

import pytest
import torch

import foveate
from foveate.errors import InvalidParameter
from foveate.method import Method
from foveate.methods.layers.vista_llama import VistaLLaMA
from foveate.methods.projectors.vista_llama import SequentialProjector, emitted
from foveate.parts import RulePart
from tests.engine.running import close, generate, pair
from tests.families import zoo
from tests.families.halves import Half, HalfAt


@dataclass(frozen=True, kw_only=True, repr=False)
class Chosen(Method, RulePart):
    """Every pair by itself: raw where the key is visual, of all queries or of text queries."""

    slug = "chosen"
    visual_query: str = "raw"

    def attend(self, call, proceed):
        shared = call.query.shape[1] // call.key.shape[1]
        key, value = (x.repeat_interleave(shared, 1) for x in (call.key, call.value))
        raw = call.turned(call.query, back=True)
        stretch = call.seam.tables(call.keys.positions)
        plain = call.seam.rotate(key, stretch[0], -stretch[1])
        free = call.keys.visual[:, None, None, :]
        if self.visual_query == "rope":
            free = free & ~call.queries.visual[:, None, :, None]
        logits = torch.where(free, raw @ plain.mT, call.query @ key.mT) * call.scaling
        seen = call.seen() | ~call.queries.valid[:, None, :, None]
        return (logits.masked_fill(~seen, float("-inf")).softmax(-1) @ value).transpose(1, 2)


def run(method, name="llava", steps=4, **options):
    model, (_, batch) = zoo.model(name), pair(name)
    with foveate.attach(model, method):
        return generate(model, batch, steps, **options)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
@pytest.mark.parametrize("visual_query", ["raw", "rope"])
def test_one_kernel_is_the_choice_by_pair(name, visual_query):
    method = VistaLLaMA(visual_query=visual_query)
    assert close(run(method, name), run(Chosen(visual_query=visual_query), name))


def test_the_two_readings_differ():
    raw, rope = run(VistaLLaMA()), run(VistaLLaMA(visual_query="rope"))
    assert not close(raw, rope)
    with pytest.raises(InvalidParameter, match="both"):
        VistaLLaMA(visual_query="both")


@pytest.mark.parametrize("method", [Half(), HalfAt(k=2)], ids=str)
def test_decoding_is_one_long_prompt(method):
    both = method + VistaLLaMA()
    assert close(run(both), run(both, use_cache=False))


def test_only_distances_between_words_count():
    """Moving everything changes nothing; moving a picture that comes first neither."""
    model, (alone, _) = zoo.model("llava"), pair("llava")
    ids = alone[0]["input_ids"]
    ids = ids[:, int((ids[0] == zoo.IMAGE).nonzero()[0]) :]
    inputs = {**alone[0], "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    steps = torch.arange(ids.shape[1])[None]
    moved = torch.where(ids == zoo.IMAGE, 3 * steps, steps + 90)

    def logits(positions, method):
        with foveate.attach(model, method), torch.no_grad():
            return model(**inputs, position_ids=positions).logits

    expected = logits(steps, VistaLLaMA())
    assert torch.allclose(logits(steps + 40, VistaLLaMA()), expected, atol=1e-4)
    assert torch.allclose(logits(moved, VistaLLaMA()), expected, atol=1e-4)
    assert not torch.allclose(
        logits(moved, Half(keep=1.0)), logits(steps, Half(keep=1.0)), atol=0.1
    )


def test_costs_products_twice_as_wide():
    model, (alone, _) = zoo.model("llava"), pair("llava")
    with foveate.attach(model, VistaLLaMA()) as att:
        generate(model, alone[0], 2)
    n = alone[0]["input_ids"].shape[1]
    assert att.report.flops - att.report.flops_full == 5 * n * n * 2 * 32


def small(**options):
    torch.manual_seed(0)
    sizes = {"num_query": 3, "width": 8, "heads": 2, "depth": 2, "intermediate": 12}
    module = SequentialProjector(6, 5, **sizes, **options)
    torch.nn.init.normal_(module.query_tokens)
    return module


def test_the_last_frame_is_always_emitted():
    assert emitted(8, 4) == [1, 3, 5, 7] and emitted(4, 4) == [0, 1, 2, 3]
    assert emitted(10, 4) == [1, 3, 5, 7, 9] and emitted(7, 1) == [6]
    for wrong in (0, 5):
        with pytest.raises(InvalidParameter, match=f"num_clips={wrong} .* 4 frames"):
            emitted(4, wrong)


def test_an_answer_knows_what_came_before_and_nothing_later():
    module, frames = small(), torch.randn(2, 4, 7, 6)
    tokens, state = module(frames, 4)
    assert tokens.shape == (2, 12, 5) and state.shape == (2, 3, 8)
    other = frames.clone()
    other[:, 2] = torch.randn(2, 7, 6)
    changed, _ = module(other, 4)
    assert torch.equal(changed[:, :6], tokens[:, :6])
    assert not torch.allclose(changed[:, 9:], tokens[:, 9:], atol=1e-3)
    swapped, _ = module(frames[:, [1, 0, 2, 3]], 4)
    assert not torch.allclose(swapped[:, 9:], tokens[:, 9:], atol=1e-3)
    first, held = module(frames[:, :3], 3)
    assert torch.allclose(module(frames[:, 3:], 1, held)[0], tokens[:, 9:], atol=1e-6)


@pytest.mark.parametrize("detach", [True, False])
def test_gradients_go_back_in_time_only_when_asked(detach):
    module, frames = small(detach=detach), torch.randn(1, 2, 7, 6, requires_grad=True)
    module(frames, 1)[0].sum().backward()
    assert bool(frames.grad[:, 0].any()) != detach and frames.grad[:, 1].any()


def test_other_ways_to_ask():
    frames = torch.randn(1, 3, 7, 6)
    alone, alike = small(queries="alone"), frames[:, :1].expand(-1, 3, -1, -1)
    tokens = alone(alike, 3)[0]
    assert torch.allclose(tokens[:, :3], tokens[:, 3:6], atol=1e-6)
    before = small(queries="previous_only")(frames, 3)[0]
    assert not torch.allclose(before[:, 3:], small()(frames, 3)[0][:, 3:], atol=1e-3)
    with pytest.raises(InvalidParameter, match="twice"):
        small(queries="twice")
