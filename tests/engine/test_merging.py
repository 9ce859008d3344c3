"""Merging and reordering at a boundary, and the heads that parts may read there."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import foveate
from foveate.method import Method
from foveate.parts import LayersPart, Merge
from foveate.signals import DecoderHeads
from tests.engine.running import close, generate, pair
from tests.families import zoo


@dataclass(frozen=True, kw_only=True)
class Pairs(Method, LayersPart):
    """Merges every second visual column with its right neighbour; the last ones come first."""

    slug = "pairs"

    positions: str = "original"
    k: int = 2
    weight: float = 0.5
    turn: bool = False
    by_merge: bool = True

    def boundaries(self, layers):
        return (self.k,)

    def at_boundary(self, k, layers, state):
        own = torch.arange(state.visual.shape[1], device=state.visual.device)
        rank = state.visual.long().cumsum(1) - 1
        stays = (rank % 2 == 0) & state.visual
        if not self.by_merge:
            return stays
        into = torch.where(stays | ~state.visual, own, own - 1)
        weight = torch.where(stays, 1 - self.weight, self.weight)
        return Merge(into, weight, -own.expand_as(into) if self.turn else None)


@pytest.mark.parametrize("name", zoo.FAMILIES)
@pytest.mark.parametrize("positions", ["original", "packed"])
def test_taking_nothing_in_is_dropping(name, positions):
    model = zoo.model(name)
    _, batch = pair(name)
    outcomes = []
    for by_merge in (False, True):
        method = Pairs(weight=0.0, by_merge=by_merge, positions=positions)
        with foveate.attach(model, method) as att:
            outcomes.append(generate(model, batch, 4))
            assert att.report.tokens_out[0] < att.report.tokens_in[0]
    assert close(*outcomes)


@pytest.mark.parametrize("turn", [False, True])
def test_a_merge_in_front_of_layer_0_is_a_prompt_of_merged_embeddings(turn):
    model = zoo.model("llava")
    batch = zoo.batch("llava", [zoo.sample("llava", "image")])
    seen = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _, args, kw: seen.append(kw["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**batch)
    hook.remove()
    x, visual = seen[0], batch["input_ids"][0] == zoo.IMAGE
    columns = visual.nonzero()[:, 0]
    pooled = x[:, columns].unflatten(1, (-1, 2)).mean(2)
    kept, merged = torch.arange(x.shape[1])[~visual], columns[::2]
    key = torch.cat([kept, merged])
    order = (-key if turn else key).argsort()
    rows = torch.cat([x[:, kept], pooled], 1)[:, order]
    with torch.no_grad():
        expected = model.lm_head(
            model.model.language_model(
                inputs_embeds=rows,
                position_ids=key[order][None],
                attention_mask=torch.ones(1, len(order), dtype=torch.long),
            ).last_hidden_state
        )
        with foveate.attach(model, Turned(k=0) if turn else Pairs(k=0)):
            logits = model(**batch).logits
    assert torch.allclose(logits, expected, atol=1e-5)


class Turned(Pairs):
    """`Pairs` that reverses the prompt."""

    def at_boundary(self, k, layers, state):
        merge = super().at_boundary(k, layers, state)
        return Merge(merge.into, merge.weight, -torch.arange(merge.into.shape[1]).expand(1, -1))


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_batches_of_merged_and_reordered_rows_are_their_rows(name):
    model = zoo.model(name)
    alone, batch = pair(name)
    for method in (Pairs(), Pairs(turn=True), Pairs(turn=True, positions="packed")):
        with foveate.attach(model, method + Pairs(k=3)):
            singles = [generate(model, one, 4) for one in alone]
            rows = generate(model, batch, 4)
        for i, single in enumerate(singles):
            assert close((rows[0][i : i + 1], rows[1][i : i + 1]), single)


def test_the_report_knows_who_took_whom_in():
    model = zoo.model("llava")
    batch = zoo.batch("llava", [zoo.sample("llava", "image")])
    with foveate.attach(model, Pairs() + Pairs(k=3, turn=True)) as att, torch.no_grad():
        model(**batch)
    trace = att.report.traces[0]
    n = trace.layout.n
    assert att.report.tokens_out == [n // 4]
    assert trace.assign.tolist() == [i // 4 for i in range(n)]
    assert trace.size.tolist() == [4.0] * (n // 4)


def test_gradients_reach_what_was_merged():
    model = zoo.model("llava")
    batch = zoo.batch("llava", [zoo.sample("llava", "image")])
    pixels = batch["pixel_values"].clone().requires_grad_()
    with foveate.attach(model, Pairs()):
        model(**{**batch, "pixel_values": pixels}).logits[:, -1].sum().backward()
    model.zero_grad()
    assert pixels.grad.abs().sum() > 0


@dataclass(frozen=True, kw_only=True)
class HeadSpy(Method, LayersPart):
    """Keeps everything; notes the heads of the layer ahead and of the one behind."""

    slug = "head_spy"
    shown: tuple[list, ...] = ([],)

    @property
    def needs(self):
        return (DecoderHeads(),)

    def boundaries(self, layers):
        return (2, 3)

    def at_boundary(self, k, layers, state):
        rows = torch.arange(state.hidden.shape[1]).expand(len(state.hidden), -1)
        ahead, behind = state.heads(), state.signals[DecoderHeads()]
        self.shown[0].append((state, ahead.rows(rows), behind.rows(rows)))
        state.notes["seen"] = state.notes.get("seen", torch.zeros(())) + k


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_heads_ahead_are_the_heads_behind_one_layer_later(name):
    model, seen = zoo.model(name), []
    samples = [zoo.sample(name, "image", i) for i in (0, 1)]
    with foveate.attach(model, Pairs(k=1) + HeadSpy(shown=(seen,))), torch.no_grad():
        model(**zoo.batch(name, samples))
    (state, ahead, _), (later, _, behind) = seen
    alive = state.valid[:, None, :, None].expand_as(ahead)
    assert torch.allclose(ahead[alive], behind[alive], atol=1e-5)
    assert torch.allclose(ahead.sum(-1)[alive[..., 0]], torch.ones(()), atol=1e-5)
    if name != "gemma3":
        # Single rows look past the sliding window of such a layer, heads don't.
        last = state.attention(state.last[:, None])[:, :, 0]
        index = state.last.view(-1, 1, 1, 1).expand(-1, ahead.shape[1], 1, ahead.shape[3])
        assert torch.allclose(ahead.gather(2, index)[:, :, 0], last, atol=1e-5)
    assert later.notes["seen"] == 5, "notes are carried from boundary to boundary"
