"""Scores by which methods rank tokens: recorded on request, and in agreement with what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import torch

import foveate
from foveate.errors import FoveateError
from foveate.method import Method, register, registered
from foveate.methods.layers.base import ScoredLayers
from foveate.methods.tokens.base import ScoredTokens
from foveate.parts import STAGES
from foveate.tokens import VisualTokens
from tests.families import zoo
from tests.methods.made import halved, made

METHODS = registered()
# They choose tokens by another rule than a score per token: coverage, thresholds of pairs, pooling,
# a fixed pattern, or one decision for all tokens of a sample.
UNSCORED = {
    *("dart", "divprune", "downsample", "dymu", "dyvte", "fourier_vlm", "grid_pool", "llavolta"),
    *("tc_llava", "tome", "uniform", "vista_llama", "yopo"),
}


def pure(slug: str) -> bool:
    """Whether a method keeps exactly the tokens with the largest scores at each place."""
    parts = made(slug).parts()
    scored = [isinstance(p, ScoredTokens | ScoredLayers) for p in parts]
    # AIM merges before it ranks; its part inside the LLM is the one that scores.
    return any(scored) and slug != "lvlm_csp"


PURE = [slug for slug in METHODS if pure(slug)]


@cache
def inputs(name: str, modality: str = "image"):
    """Two rows, the second with two images and padding before the first."""
    first, second = (zoo.sample(name, modality, i) for i in (0, 1))
    return zoo.batch(name, [first, zoo.joined(name, second, first)])


def asked(name: str, method: Method, modality: str = "image"):
    """Logits and traces with scores, then without."""
    model, batch = zoo.model(name), inputs(name, modality)
    with foveate.attach(model, method, record_scores=True) as att, torch.no_grad():
        on = model(**batch).logits, att.report.traces
        att.record_scores = False
        off = model(**batch).logits, att.report.traces
    return on, off


@pytest.mark.parametrize("slug", METHODS)
def test_methods_give_scores_on_request_and_compute_the_same(slug):
    (with_scores, scored), (without, bare) = asked("llava", halved(slug))
    assert torch.equal(with_scores, without)
    assert not any(trace.scores for trace in bare)
    assert [bool(trace.scores) for trace in scored] == [slug not in UNSCORED] * 3
    for trace in scored:
        for scores in trace.scores:
            assert scores.method == slug and scores.stage in STAGES
            assert (scores.layer is None) == (scores.stage in ("encoders", "tokens"))
            assert scores.values.shape == (trace.layout.n,)
            assert scores.values.dtype == torch.float32 and scores.values.device.type == "cpu"
            assert not scores.values.isnan().all() and not scores.values.isinf().any()


def test_pure_methods_are_found():
    assert {"fastervlm", "vtc_cls", "fopru", "random"} <= {*PURE}
    assert {"fastv", "pyramiddrop", "transprune", "gsearch", "covipal", "aim"} <= {*PURE}


@pytest.mark.parametrize("name", ["llava", "llava_next"])
@pytest.mark.parametrize("slug", PURE)
def test_kept_tokens_have_the_largest_scores(slug, name):
    (_, traces), _ = asked(name, halved(slug))
    per_item = getattr(made(slug), "per_item", False)
    seen = 0
    for rows in [[traces[0]], traces[1:]]:
        for place in range(len(rows[0].scores)):
            scores = [trace.scores[place] for trace in rows]
            kept = [kept_at(trace, s) for trace, s in zip(rows, scores, strict=True)]
            values = [s.values for s in scores]
            if scores[0].stage == "layers" and not per_item:
                # All items of a row are ranked together.
                kept, values = [torch.cat(kept)], [torch.cat(values)]
            elif scores[0].stage == "tokens" and made(slug).per_view:
                kept, values = by_view(rows, kept), by_view(rows, values)
            for own, value in zip(kept, values, strict=True):
                ranked = ~value.isnan()
                if (own & ranked).any() and (~own & ranked).any():
                    seen += 1
                    assert value[own & ranked].min() >= value[~own & ranked].max()
                assert not (own & ~ranked).any()
    assert seen


def kept_at(trace, scores):
    """Slots (S,) whose token goes on after the place where it was ranked."""
    if scores.layer is None:
        span = trace.by_layer[0]
    else:
        span = next(s for s in trace.by_layer if s.first <= scores.layer <= s.last)
    return span.assign >= 0


def by_view(traces, values):
    """Values of each crop of each item."""
    return [
        x[trace.layout.view == view]
        for trace, x in zip(traces, values, strict=True)
        for view in range(len(trace.layout.grid.views))
    ]


@pytest.mark.parametrize("slug", ["fastervlm", "tca"])
def test_newlines_have_no_score_before_the_llm(slug):
    (_, traces), _ = asked("llava_next", halved(slug))
    for trace in traces:
        assert trace.layout.special.any()
        assert torch.equal(trace.scores[0].values.isnan(), trace.layout.special)


def test_dropped_tokens_have_no_score_at_later_places():
    method = foveate.FasterVLM(keep=0.5) + foveate.FastV(k=1, keep=0.5) + foveate.FastV(keep=0.3)
    (_, traces), _ = asked("llava", method)
    for trace in traces:
        places = [(s.method, s.stage, s.layer) for s in trace.scores]
        assert places == [
            ("fastervlm", "tokens", None),
            ("fastv", "layers", 1),
            ("fastv", "layers", 2),
        ]
        before, behind, last = (~s.values.isnan() for s in trace.scores)
        assert before.all() and int(behind.sum()) == 8
        assert torch.equal(behind, trace.by_layer[0].assign >= 0)
        assert torch.equal(last, trace.by_layer[1].assign >= 0)


def test_merged_tokens_give_their_score_to_every_slot_that_they_hold():
    method = foveate.GridPool(keep=4) + foveate.SparseVLM(keep=0.9) + foveate.FastV(k=4, keep=0.5)
    (_, traces), _ = asked("llava", foveate.GridPool(keep=4) + foveate.FastV(k=1, keep=0.5))
    (_, later), _ = asked("llava", method)
    (_, merged), _ = asked("llava", foveate.SparseVLM(keep=0.5))
    assert all(trace.by_layer[1].tokens < (trace.by_layer[1].assign >= 0).sum() for trace in merged)
    for trace in (*traces, *later, *merged):
        for scores in trace.scores:
            before = next(s for s in trace.by_layer if s.last >= scores.layer - 1)
            own = before.assign >= 0
            assert torch.equal(~scores.values.isnan(), own)
            for token in before.assign[own].unique():
                assert len(scores.values[before.assign == token].unique()) == 1
    assert all(len(trace.scores[0].values.unique()) == 4 for trace in traces)


def test_patches_that_leave_the_encoder_as_they_are_have_the_largest_scores():
    method = foveate.TCA(keep=0.5, drop_loc=(6,), centers=0)
    (_, traces), _ = asked("llava", method)
    for trace in traces:
        (scores,) = trace.scores
        assert scores.stage == "encoders" and not scores.values.isnan().any()
        alone = trace.size[trace.assign] == 1
        assert alone.sum() == 7
        assert scores.values[alone].min() >= scores.values[~alone].max()


def test_patches_that_merged_in_the_encoder_share_later_scores():
    # ToMe merges three pairs in the first block, after which TCA ranks 13 tokens in the second.
    (_, traces), _ = asked("llava", foveate.TCA(keep=0.5, centers=0) + foveate.ToMe(r=(3, 0)))
    for trace in traces:
        (scores,) = trace.scores
        assert scores.method == "tca" and len(scores.values.unique()) == 13


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
def test_videos_have_scores_of_all_frames(name):
    method = foveate.FastV(k=1, keep=0.5)
    (_, traces), _ = asked(name, foveate.FasterVLM(keep=0.5, score="received") + method, "video")
    for trace in traces:
        before, inside = (s.values for s in trace.scores)
        assert torch.equal(~before.isnan(), ~trace.layout.special)
        assert torch.equal(~inside.isnan(), trace.by_layer[0].assign >= 0)


@pytest.mark.parametrize("cached", [True, False])
def test_generate_keeps_the_scores_of_its_prompt(cached):
    model, batch = zoo.model("llava"), inputs("llava")
    method = foveate.VTCCLS(keep=0.5) + foveate.FastV(k=1, keep=0.5)
    with foveate.attach(model, method, record_scores=True) as att, torch.no_grad():
        model(**batch)
        expected = [[s.values for s in trace.scores] for trace in att.report.traces]
        model.generate(**batch, max_new_tokens=3, do_sample=False, use_cache=cached)
        found = [[s.values for s in trace.scores] for trace in att.report.traces]
        for one, other in zip(expected, found, strict=True):
            for a, b in zip(one, other, strict=True):
                torch.testing.assert_close(a, b, equal_nan=True)


def test_scores_can_be_asked_for_while_generate_runs_without_a_cache():
    model, batch = zoo.model("llava"), inputs("llava")
    with foveate.attach(model, foveate.VTCCLS(keep=0.5)) as att:

        def ask(ids, scores, **_):
            att.record_scores = True
            return torch.zeros(len(ids), dtype=torch.bool)

        model.generate(**batch, max_new_tokens=3, use_cache=False, stopping_criteria=[ask])
        assert all(len(trace.scores) == 1 for trace in att.report.traces)


def test_a_second_turn_leaves_the_scores_of_the_first():
    model, batch = zoo.model("llava"), zoo.batch("llava", [zoo.sample("llava", "image")])
    with (
        foveate.attach(model, foveate.FastV(k=1), record_scores=True) as att,
        torch.no_grad(),
    ):
        out = model(**batch, use_cache=True)
        first = att.report.traces[0].scores[0].values
        more = torch.full((1, 4), 7)
        mask = torch.cat([batch["attention_mask"], torch.ones_like(more)], 1)
        att.record_scores = False
        model(input_ids=more, attention_mask=mask, past_key_values=out.past_key_values)
        (scores,) = att.report.traces[0].scores
    assert torch.equal(scores.values, first)


def test_scores_can_be_asked_for_between_calls():
    model, batch = zoo.model("llava"), inputs("llava")
    with foveate.attach(model, "tca", keep=0.5) as att, torch.no_grad():
        model(**batch)
        assert not any(trace.scores for trace in att.report.traces)
        att.record_scores = True
        model(**batch)
        assert all(trace.scores for trace in att.report.traces)


def test_images_that_a_layer_does_not_rank_have_no_score_there():
    (_, traces), _ = asked("llava", foveate.CATP(keep=0.5))
    # The last image of each row is the query's; CATP ranks the others one layer earlier.
    assert [[s.layer for s in trace.scores] for trace in traces] == [[2], [1], [2]]


def test_a_row_ranks_as_it_does_alone():
    model, method = zoo.model("llava_next"), foveate.PyramidDrop(keep=0.5)
    alone = zoo.batch("llava_next", [zoo.sample("llava_next", "image", 0)])
    (_, traces), _ = asked("llava_next", method)
    with foveate.attach(model, method, record_scores=True) as att, torch.no_grad():
        model(**alone)
        (trace,) = att.report.traces
    for one, other in zip(trace.scores, traces[0].scores, strict=True):
        torch.testing.assert_close(one.values, other.values, equal_nan=True)


def test_in_training_scores_carry_no_gradients():
    model, batch = zoo.model("llava"), inputs("llava")
    with foveate.attach(model, Loudest(keep=0.5), record_scores=True) as att:
        loss = model(**batch, labels=batch["input_ids"]).loss
        assert loss.requires_grad
        assert not any(s.values.requires_grad for t in att.report.traces for s in t.scores)


@pytest.fixture
def known():
    """Lets a test register methods of its own."""
    from foveate import method

    before = dict(method._registry)
    yield
    method._registry.clear()
    method._registry.update(before)


@dataclass(frozen=True, kw_only=True, repr=False)
class Loudest(ScoredTokens):
    """Keep the tokens with the largest features."""

    slug = "loudest"
    keep: float = 0.25

    def scores(self, tokens, signals):
        return tokens.features.norm(dim=-1)


@dataclass(frozen=True, kw_only=True, repr=False)
class LoudestInside(Method, ScoredLayers):
    """Keep the visual tokens with the largest hidden states."""

    slug = "loudest_inside"
    keep: float = 0.25

    def boundaries(self, layers):
        return (1,)

    def scores(self, k, layers, state):
        return state.hidden.norm(dim=-1)


@dataclass(frozen=True, kw_only=True, repr=False)
class LoudestOfEach(LoudestInside):
    """The same for each image by itself."""

    slug = "loudest_of_each"
    per_item = True

    def scores(self, k, layers, state):
        # No token of an earlier image would stay if they were ranked together.
        return super().scores(k, layers, state) + 1000 * state.item


@pytest.mark.parametrize("cls", [Loudest, LoudestInside, LoudestOfEach])
def test_a_method_of_ones_own_needs_scores_only(known, cls):
    register(cls)
    (_, traces), _ = asked("llava", foveate.create(cls.slug, keep=0.25))
    for rows in [[traces[0]], traces[1:]]:
        values = [trace.scores[0].values for trace in rows]
        last = [trace.assign >= 0 for trace in rows]
        if cls is LoudestInside:
            values, last = [torch.cat(values)], [torch.cat(last)]
        for value, own in zip(values, last, strict=True):
            best = value.argsort(descending=True)[: len(value) // 4]
            assert sorted(best.tolist()) == own.nonzero()[:, 0].tolist()


def test_ties_go_to_the_token_that_comes_first(make_tokens, make_signals, layouts):
    class Even(Loudest):
        def scores(self, tokens, signals):
            return torch.ones_like(tokens.size)

    tokens = make_tokens(layouts["newlines"])
    left = Even().reduce(tokens, make_signals(Even(), tokens), 6)
    patches = (~layouts["newlines"].special).nonzero()[:, 0]
    assert left.index.tolist() == [patches[:6].tolist()] * 2


def test_newlines_stay_only_where_no_patch_is_left(make_tokens, make_signals, layouts):
    tokens = make_tokens(layouts["newlines"])
    n = int((~layouts["newlines"].special).sum())
    left: VisualTokens = Loudest().reduce(tokens, make_signals(Loudest(), tokens), n + 2)
    assert left.patch.sum(1).tolist() == [n, n]


def test_errors_of_scores_name_the_method(known):
    class Short(Loudest):
        def scores(self, tokens, signals):
            return super().scores(tokens, signals)[:, :3]

    class ShortInside(LoudestInside):
        def scores(self, k, layers, state):
            return super().scores(k, layers, state)[:, :3]

    for method in (Short(), ShortInside()):
        with (
            foveate.attach(zoo.model("llava"), method),
            pytest.raises(FoveateError, match=f"{type(method).__name__}.scores returned"),
        ):
            zoo.model("llava")(**inputs("llava"))
