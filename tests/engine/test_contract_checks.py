"""What parts from outside return: taken as it is where it is right, one sentence otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

import foveate
from foveate.errors import FoveateError
from foveate.method import Method
from foveate.methods.tokens.base import TokensMethod
from foveate.parts import Detour, DetourPart, EncodersPart, LayersPart, Merge, Soft, TokensPart
from tests.families import zoo

KEEP, SLOTS = 8, 16


@dataclass(frozen=True, kw_only=True, repr=False)
class Chosen(TokensMethod):
    """Returns from `select` whatever it is told."""

    slug = "chosen"
    keep: int = KEEP
    answer: Callable[[torch.Tensor], Any] = lambda first: first

    def select(self, tokens, signals, keep):
        return self.answer(torch.arange(keep).repeat(len(tokens.features), 1))


@dataclass(frozen=True, kw_only=True, repr=False)
class Reduced(Method, TokensPart):
    """Returns from `reduce` whatever it is told, and promises what it is told."""

    slug = "reduced"
    answer: Callable[[Any], Any] = lambda tokens: tokens
    promise: Any = KEEP

    def count(self, grid):
        return self.promise

    def reduce(self, tokens, signals, keep):
        return self.answer(tokens.take(torch.arange(KEEP).repeat(len(tokens.features), 1)))


@dataclass(frozen=True, kw_only=True, repr=False)
class Bounded(Method, LayersPart):
    """Returns from `at_boundary` whatever it is told."""

    slug = "bounded"
    answer: Callable[[Any], Any] = lambda state: None

    def boundaries(self, layers):
        return (2,)

    def at_boundary(self, k, layers, state):
        return self.answer(state)


@dataclass(frozen=True, kw_only=True, repr=False)
class Around(Method, DetourPart):
    """Returns from `runs` whatever it is told."""

    slug = "around"
    answer: Callable[[Any], Any] = lambda state: None

    def layers(self, layers):
        return (2,)

    def runs(self, i, layers, state):
        return self.answer(state)


@dataclass(frozen=True, kw_only=True, repr=False)
class Merging(Method, EncodersPart):
    """Returns from `merge` whatever it is told."""

    slug = "merging"
    answer: Callable[[Any], Any] = lambda state: None

    def merge(self, block, blocks, state):
        return self.answer(state)


def run(method: Method) -> Any:
    """The report of one batch of two pictures."""
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", i) for i in (0, 1)])
    with foveate.attach(model, method) as attached, torch.no_grad():
        model(**inputs)
    return attached.report


def refused(method: Method, name: str, *words: str) -> None:
    model = zoo.model("llava")
    with pytest.raises(FoveateError) as caught:
        run(method)
    text = str(caught.value)
    assert text.startswith(f"{type(method).__name__}.{name} returned "), text
    assert text.endswith(".") and "\n" not in text and "; return " in text
    for word in words:
        assert word in text, text
    # The model is bare again, and the next method runs.
    with foveate.attach(model, foveate.DivPrune(keep=4)):
        pass


@pytest.mark.parametrize(
    "answer",
    [
        lambda first: first,
        lambda first: first.flip(1),
        lambda first: first.int(),
        lambda first: first + 8,
    ],
)
def test_indices_in_any_order_are_taken(answer):
    report = run(Chosen(answer=answer))
    expected = answer(torch.arange(KEEP)[None])[0].long()
    assert report.tokens_out == [KEEP, KEEP]
    assert all(trace.index.tolist() == expected.tolist() for trace in report.traces)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda i: i.clamp(max=6), "an index twice"),
        (lambda i: i * 0, "an index twice"),
        (lambda i: i + 9, "out of range"),
        (lambda i: i - 1, "out of range"),
        (lambda i: i + 1000, "out of range"),
        (lambda i: i.float(), "float32 of shape (2, 8)"),
        (lambda i: i.bool(), "bool of shape (2, 8)"),
        (lambda i: torch.zeros(2, SLOTS, dtype=torch.bool), "bool of shape (2, 16)"),
        (lambda i: i.to(torch.uint8), "uint8"),
        (lambda i: i[0], "(8,)"),
        (lambda i: i[:1], "(1, 8)"),
        (lambda i: i[:, :7], "(2, 7)"),
        (lambda i: torch.arange(9).repeat(2, 1), "(2, 9)"),
        (lambda i: i[None], "(1, 2, 8)"),
        (lambda i: i.to("meta"), "on meta"),
        (lambda i: i.tolist(), "[[0, 1"),
        (lambda i: None, "None"),
        (lambda i: (i, i), "(tensor"),
    ],
)
def test_wrong_choices_are_refused(answer, words):
    refused(
        Chosen(answer=answer),
        "select",
        words,
        "(B, keep) = (2, 8)" * ("rang" not in words and "twice" not in words),
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda t: None, "None"),
        (lambda t: t.features, "float32 of shape (2, 8"),
        (lambda t: replace(t, features=t.features[:1]), "features (2, 8"),
        (lambda t: replace(t, features=t.features[..., :3]), "(2, 8, 3)"),
        (lambda t: replace(t, features=t.features.double()), "float64"),
        (lambda t: replace(t, features=t.features.to("meta")), "on meta"),
        (lambda t: replace(t, index=t.index.float()), "index (2, 8)"),
        (lambda t: replace(t, assign=t.assign[:, :4]), "assign (2, 16)"),
        (lambda t: replace(t, index=t.index * 0), "has a slot twice"),
        (lambda t: replace(t, index=t.index + 100), "out of range"),
        (lambda t: replace(t, assign=t.assign + 8), "out of range"),
    ],
)
def test_wrong_reductions_are_refused(answer, words):
    refused(Reduced(answer=answer), "reduce", words)


@pytest.mark.parametrize("promise", [8.0, True, 0, -1, 17, None, "8"])
def test_wrong_promises_are_refused(promise):
    refused(Reduced(promise=promise), "count", repr(promise), "from 1 to 16")
    with pytest.raises(FoveateError, match="Reduced.count"):
        Reduced(promise=promise).budget(run(foveate.DivPrune(keep=4)).traces[0].layout.grid)


def test_reductions_that_break_their_promise_are_refused():
    with pytest.raises(FoveateError, match="returned 8 of 16 tokens, but count promised 9"):
        run(Reduced(promise=9))
    assert run(Reduced(promise=torch.tensor(8).numpy()[()])).tokens_out == [8, 8]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda s: s.visual.long().cumsum(1), "int64 of shape"),
        (lambda s: s.visual.float(), "float32"),
        (lambda s: s.visual[:1], "bool of shape (1,"),
        (lambda s: s.visual[:, :-1], "bool of shape"),
        (lambda s: s.visual.to("meta"), "on meta"),
        (lambda s: [True], "[True]"),
        (lambda s: (s.visual, s.visual), "a Merge, a Soft or None"),
        (lambda s: Soft(s.visual), "log_weight"),
        (lambda s: Soft(s.valid[:1].float()), "log_weight"),
        (lambda s: Merge(s.visual, s.visual.float()), "into"),
        (lambda s: Merge(s.item * 0 + 9999, s.visual.float()), "out of range"),
        (lambda s: Merge(s.item * 0 - 2, s.visual.float()), "out of range"),
        (lambda s: Merge(s.item, s.visual), "weight"),
        (lambda s: Merge(s.item, s.visual.float(), s.visual), "place"),
    ],
)
def test_wrong_verdicts_at_a_boundary_are_refused(answer, words):
    refused(Bounded(answer=answer), "at_boundary", words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda s: s.visual, "a Detour or None"),
        (lambda s: Detour(s.visual.long()), "run ("),
        (lambda s: Detour(s.visual[:, 1:]), "run ("),
        (lambda s: Detour(s.visual, gate=s.visual), "gate ("),
        (lambda s: Detour(s.visual, follow=s.visual), "follow ("),
        (lambda s: Detour(~s.visual, follow=s.item * 0 + 9999), "out of range"),
    ],
)
def test_wrong_detours_are_refused(answer, words):
    refused(Around(answer=answer), "runs", words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda s: s.size, "assign ("),
        (lambda s: (s.size, 8), "assign ("),
        (lambda s: (s.size.long()[:, 1:], 8), "assign ("),
        (lambda s: (s.size.long() * 0, 1.0), "1.0"),
        (lambda s: (s.size.long() * 9, 8), "out of range"),
        (lambda s: (s.size.long() * 0 - 2, 8), "out of range"),
        (lambda s: (s.size.long() * 0, 1, s.size[:1]), "weights ("),
    ],
)
def test_wrong_merges_are_refused(answer, words):
    refused(Merging(answer=answer), "merge", words)


def test_methods_of_the_package_ask_the_device_nothing(monkeypatch):
    foreign, asked = Chosen(), []
    real = torch.Tensor.__bool__
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda x: asked.append(1) or real(x))
    run(foveate.Uniform(keep=KEEP))
    own = len(asked)
    run(foreign)
    # Its choice, and the books of what came of it.
    assert len(asked) == 2 * own + 2
