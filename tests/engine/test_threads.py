"""Threads, calls inside calls and interrupted calls: what one asks never meets another's answer."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

import foveate
from tests.engine.running import generate
from tests.families import zoo
from tests.families.halves import Half, HalfAt

METHODS = [
    foveate.FasterVLM(keep=0.5),
    foveate.ToMe(keep=0.5),
    foveate.FastV(k=2, keep=0.5),
    foveate.VistaLLaMA(),
    Half() + HalfAt(),
]
every = pytest.mark.parametrize("method", METHODS, ids=repr)


def together(works) -> list:
    """Results of functions that run in threads of their own; what one raises is its result."""
    results = [None] * len(works)
    start = threading.Barrier(len(works))

    def run(i: int) -> None:
        start.wait()
        try:
            results[i] = works[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def inputs(i: int):
    return zoo.batch("llava", [zoo.sample("llava", "image", i)])


@every
def test_threads_answer_as_one_after_the_other(method):
    model = zoo.model("llava")
    with foveate.attach(model, method):
        expected = [generate(model, inputs(i), 4) for i in (0, 1)]
        works = [lambda i=i: [generate(model, inputs(i), 4) for _ in range(4)] for i in (0, 1, 0)]
        for i, runs in zip((0, 1, 0), together(works), strict=True):
            assert not isinstance(runs, Exception), runs
            assert all(torch.equal(run[1], expected[i][1]) for run in runs)


def test_a_thread_that_raises_leaves_the_others_alone():
    model = zoo.model("llava")
    few = {**inputs(0), "input_ids": inputs(0)["input_ids"][:, 5:]}
    del few["attention_mask"]

    def fails() -> int:
        raised = 0
        for _ in range(4):
            try:
                model(**few)
            except foveate.UnsupportedCall:
                raised += 1
        return raised

    with foveate.attach(model, Half() + HalfAt()):
        expected = generate(model, inputs(1), 4)
        works = [fails, lambda: [generate(model, inputs(1), 4) for _ in range(4)]]
        raised, runs = together(works)
    assert raised == 4
    assert not isinstance(runs, Exception), runs
    assert all(torch.equal(run[1], expected[1]) for run in runs)


@every
def test_a_call_inside_a_call(method):
    model = zoo.model("llava")
    inner: list = []

    def ask(*_) -> None:
        if len(inner) == 0:
            inner.append(None)
            with torch.no_grad():
                inner[0] = model(**inputs(1)).logits

    with foveate.attach(model, method), torch.no_grad():
        expected = [model(**inputs(i), labels=inputs(i)["input_ids"]) for i in (0, 1)]
        handle = model.get_decoder().layers[1].register_forward_pre_hook(ask)
        try:
            got = model(**inputs(0), labels=inputs(0)["input_ids"])
        finally:
            handle.remove()
    assert torch.equal(inner[0], expected[1].logits)
    assert torch.equal(got.logits, expected[0].logits)
    assert torch.equal(got.loss, expected[0].loss)


@every
def test_an_interrupt_from_the_keyboard(method):
    """It ends a call without the hooks that tidy up; neither this thread nor another may suffer."""
    model = zoo.model("llava")

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    with foveate.attach(model, method):
        expected = generate(model, inputs(0), 2)
        handle = model.get_decoder().layers[3].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            model(**inputs(1))
        handle.remove()
        thread: list = []
        other = threading.Thread(target=lambda: thread.append(generate(model, inputs(0), 2)))
        other.start()
        other.join(timeout=60)
        assert thread and torch.equal(thread[0][1], expected[1])
        assert torch.equal(generate(model, inputs(0), 2)[1], expected[1])


def test_two_models_share_a_decoder():
    first = zoo.model("llava")
    second = copy.deepcopy(first)
    second.model.language_model = first.model.language_model
    with foveate.attach(first, foveate.FastV(k=2)), foveate.attach(second, HalfAt(k=1)):
        expected = generate(first, inputs(0), 3), generate(second, inputs(1), 3)
        works = [
            lambda: [generate(first, inputs(0), 3) for _ in range(4)],
            lambda: [generate(second, inputs(1), 3) for _ in range(4)],
        ]
        for runs, right in zip(together(works), expected, strict=True):
            assert not isinstance(runs, Exception), runs
            assert all(torch.equal(run[1], right[1]) for run in runs)


def test_interleaved_prompts_keep_their_own_time():
    model = zoo.model("llava")
    with foveate.attach(model, Half()) as attachment, torch.no_grad():
        first = model(**inputs(0), use_cache=True)
        early = attachment.report
        model(**inputs(1), use_cache=True)
        late = attachment.report
        for _ in range(3):
            new = torch.tensor([[7]])
            first = model(input_ids=new, past_key_values=first.past_key_values, use_cache=True)
        assert "decode" not in attachment.report.seconds
    assert early is not late
