"""`evaluate_method` gives the answers of the evaluation of the embedded models."""

from dataclasses import replace

import pytest

from foveate.benchmarks.evaluation import evaluate_method
from foveate.benchmarks.task_items import Batch, TaskItems
from foveate.method import Composed, create
from foveate.mini.evaluate import constant_answer, evaluate


@pytest.mark.parametrize(("mode", "task"), [("likelihood", "I1"), ("generate", "I2")])
def test_same_as_plain_evaluation(under_test, mode, task):
    asked = TaskItems(under_test, task, 8)
    plain = evaluate(under_test.model, under_test.processor, asked.items, mode=mode)
    found = evaluate_method(under_test, asked.batches, Composed(), mode)
    assert found.right.tolist() == [r.correct for r in plain.results]
    assert asked.constant_answer().mean() == pytest.approx(constant_answer(asked.items)[task])
    plain = evaluate(under_test.model, under_test.processor, asked.items, mode=mode, no_image=True)
    dark = evaluate_method(under_test, asked.constant_colour, Composed(), mode)
    assert dark.right.tolist() == [r.correct for r in plain.results]


@pytest.mark.parametrize(
    "method", [Composed(), create("uniform", keep=0.5), create("fastv", keep=0.5, k=1)], ids=repr
)
def test_long_candidates_are_scored_after_the_prompt(under_test, method):
    asked = TaskItems(under_test, "I1", 5)
    words = ("red square", "blue", "a green star", "the ring")
    items = [replace(i, candidates=words, answer=words[n % 4]) for n, i in enumerate(asked.items)]
    batch = Batch(list(range(5)), items, asked.batches[0].inputs)
    together = evaluate_method(under_test, [batch], method)
    if not method.parts():
        plain = evaluate(under_test.model, under_test.processor, items, mode="likelihood")
        assert together.right.tolist() == [r.correct for r in plain.results]
    alone = asked.prepared([[i] for i in range(5)])
    single = [Batch([i], [items[i]], one.inputs) for i, one in enumerate(alone)]
    assert evaluate_method(under_test, single, method).right.tolist() == together.right.tolist()


def test_metrics_of_a_setting(under_test):
    asked = TaskItems(under_test, "I5", 6)
    found = evaluate_method(under_test, asked.batches, create("uniform", keep=0.25))
    assert (found.tokens_in, found.tokens_out, found.tokens_mean) == (64, 16, 16)
    assert found.flops < found.flops_full
    assert {"encode", "select", "prefill", "wall", "own"} <= set(found.seconds)
    assert len(found.digests) == 1
    again = evaluate_method(under_test, asked.batches, create("uniform", keep=0.25))
    assert again.digests == found.digests


def test_a_tokenizer_without_an_end_of_text_token(under_test, monkeypatch):
    asked = TaskItems(under_test, "I1", 2)
    items = [replace(item, candidates=("red square", "blue")) for item in asked.items]
    batch = Batch([0, 1], items, asked.batches[0].inputs)
    monkeypatch.setattr(under_test.processor.tokenizer, "_special_tokens_map", {})
    assert under_test.processor.tokenizer.eos_token_id is None
    assert evaluate_method(under_test, [batch], Composed()).right.shape == (2,)
