"""Checks of the benchmark on the trained nano; docs/bench.md has the full run."""

import pytest

import foveate
from foveate import benchmarks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    model, processor = foveate.mini("nano")
    return benchmarks.run(
        model,
        processor,
        out=tmp_path_factory.mktemp("nano"),
        methods=["fastervlm", "divprune"],
        keep=[0.5, 0.25, 0.125],
        n=100,
    )


def test_some_tasks_need_the_image(results):
    assert len(results.kept_tasks()) >= 2
    for task in results.kept_tasks():
        leak = benchmarks.check(results)[0].numbers[task]["leak"]
        assert leak <= 0.1


def test_token_selection_matters(results):
    verdict = benchmarks.check(results)[1]
    assert verdict.passed, verdict.details


def test_evidence_tokens_are_needed_for_the_answer(results):
    for task in results.kept_tasks():
        oracle = results.cells[task, "oracle", 0.25]
        anti = results.row(task, "anti_oracle")
        if task != "I4":
            assert oracle.accuracy > anti["accuracy"], task


def test_keep_of_one_is_full(results):
    verdict = benchmarks.check(results)[5]
    assert verdict.passed, verdict.details
