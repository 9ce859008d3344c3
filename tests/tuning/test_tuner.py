"""Searches on an untrained model: measurements, the chosen setting, the plan."""

import json

import pytest

import foveate
from foveate.benchmarks.evaluation import evaluate_method
from foveate.errors import InvalidParameter, UnknownName
from foveate.tuning import Sample, TuneError, from_plan, read_plan, world_samples
from foveate.tuning.batches import batches_of
from foveate.tuning.encoded_images import EncodedImages
from foveate.tuning.evaluations import Evaluator
from foveate.tuning.pareto import pareto_front
from foveate.tuning.search import Search


@pytest.fixture(scope="module")
def samples():
    return world_samples(["I1"], 12, 64, 8)


def quick(pair, samples, **more):
    asked = {"methods": ["divprune", "gsearch"], "keep": [0.5], "max_drop": 0.9, "batch": 8}
    return foveate.tune(*pair, samples, **{**asked, **more})


class Same:
    """A model for `ask`."""

    def __init__(self, pair):
        self.model, self.processor = pair


@pytest.mark.parametrize("slug", ["fastv", "divprune", "visionzip", "downsample", "tome"])
def test_cached_image_features_give_the_same_answers(pair, samples, slug):
    method = foveate.create(slug, keep=0.5, **({"k": 1} if slug == "fastv" else {}))
    batches = batches_of(*pair, samples[:5], 3)["likelihood"]
    encoded = EncodedImages(pair[0])
    encoded.prepare(method)
    plain = evaluate_method(Same(pair), batches, method)
    for _ in range(2):
        again = evaluate_method(Same(pair), batches, method, inputs=encoded.inputs)
        assert again.digests == plain.digests and again.flops == plain.flops
    assert len(encoded._kept) == 2


def test_images_are_encoded_again_only_if_the_vision_encoder_changes(pair):
    encoded = EncodedImages(pair[0])
    encoded.prepare(foveate.create("divprune"))
    encoded._kept[0] = None
    for slug in ("fastv", "gsearch", "transprune", "uniform"):
        encoded.prepare(foveate.create(slug))
        assert encoded._kept, slug
    encoded.prepare(foveate.create("visionzip"))
    assert not encoded._kept


def test_a_plan_has_a_method_and_its_metrics(pair, samples, tmp_path):
    seen = []
    plan = quick(pair, samples, watch=seen.append)
    assert plan.evaluations == len({repr(s.method) for s in seen})
    assert plan.held_out["n"] == 6 and plan.held_out["cost"] < 1
    assert {"full model", plan.setting and repr(plan.method)} & {r["words"] for r in plan.front}
    path = plan.save(tmp_path / "plan.json")
    assert from_plan(path) == plan.method
    assert json.loads(json.dumps(plan.to_dict())) == read_plan(path).to_dict()
    with foveate.attach(pair[0], from_plan(path)):
        pass
    assert not list(tmp_path.glob("*.partial"))


def test_a_continued_search_gives_the_same_plan(pair, samples, tmp_path, monkeypatch):
    whole = quick(pair, samples)
    measured, left = Evaluator._measured, iter(range(4))

    def interrupted(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return measured(*args)

    monkeypatch.setattr(Evaluator, "_measured", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quick(pair, samples, folder=tmp_path / "run")
    monkeypatch.undo()
    rows = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    assert len(rows) == 4
    resumed = quick(pair, samples, folder=tmp_path / "run")
    assert json.dumps(resumed.to_dict()) == json.dumps(whole.to_dict())
    with pytest.raises(foveate.FoveateError, match="seed=0 instead of 1"):
        quick(pair, samples, folder=tmp_path / "run", seed=1)


def test_a_flops_budget_gives_the_most_accurate_setting_within_it(pair, samples):
    seen = []
    plan = quick(pair, samples, methods=["gsearch"], budget_flops=0.7, watch=seen.append)
    assert plan.held_out["cost"] <= 0.7 + 1e-6
    within = [s for s in seen if s.cost <= 0.7 and not s.refused]
    assert max(s.accuracy for s in within) == next(
        row["fit"]["accuracy"] for row in plan.front if row["method"] == plan.setting
    )
    sigmoids = [s.cost for s in seen if s.source == "p-sigmoid"]
    assert sum(abs(cost - 0.7) < 0.03 for cost in sigmoids) >= 20


def test_compositions_are_searched(pair, samples):
    plan = quick(pair, samples, methods=["divprune+gsearch"], keep=[0.75])
    costs = {row["words"]: row["fit"]["cost"] for row in plan.front}
    assert min(costs, key=costs.get) == "DivPrune(keep=0.75) + GSearch(keep=0.75)"


def test_no_setting_within_max_drop_gives_a_plan_without_setting(pair, samples, monkeypatch):
    monkeypatch.setattr(Search, "good", lambda self, score: False)
    plan = quick(pair, samples, methods=["divprune"])
    assert plan.setting is None and plan.front
    with pytest.raises(TuneError, match="no setting"):
        plan.method  # noqa: B018


def test_samples_without_choices_are_generated(pair, samples):
    free = [Sample(s.question, s.answer, s.images, (s.answer,), False) for s in samples]
    plan = quick(pair, [*free, *samples], methods=["divprune"])
    assert plan.front[0]["fit"]["n"] == 12


def test_the_pareto_front_has_no_dominated_setting(pair, samples):
    seen = []
    quick(pair, samples, watch=seen.append)
    best = pareto_front(seen)
    assert [s.cost for s in best] == sorted(s.cost for s in best)
    for score in seen:
        assert any(b.cost <= score.cost and b.accuracy >= score.accuracy for b in best)


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"max_drop": 1.5}, InvalidParameter, "max_drop=1.5"),
        ({"max_drop": -0.1}, InvalidParameter, "max_drop=-0.1"),
        ({"budget_flops": 0}, InvalidParameter, "budget_flops=0"),
        ({"searcher": "luck"}, UnknownName, "luck"),
        ({"methods": ["gserch"]}, UnknownName, "did you mean 'gsearch'"),
        ({"methods": []}, TuneError, "methods is empty"),
        ({"keep": [1.5]}, InvalidParameter, "keep=1.5"),
        ({"held_out": 1.0}, InvalidParameter, "held_out=1.0"),
        ({"batch": 0}, InvalidParameter, "batch=0"),
    ],
)
def test_invalid_search_arguments_are_refused(pair, samples, asked, error, words):
    with pytest.raises(error, match=words):
        quick(pair, samples, **asked)


def test_an_invalid_plan_file_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    with pytest.raises(TuneError, match="no plan"):
        from_plan(path)
    for text in ("{", "[]", "{}", '{"plan": 1, "x": 2}', '{"plan": 9}'):
        path.write_text(text)
        with pytest.raises(TuneError, match="not a plan"):
            from_plan(path)
    made = {"plan": 1, "model": "m", "layers": 3}
    grows = {"method": "gsearch", "schedule": [1.0, 0.2, 0.5]}
    for setting, words in (
        ({"method": "gserch"}, "gserch"),
        (grows, "never rise"),
        (None, "no setting"),
    ):
        path.write_text(json.dumps({**made, "setting": setting}))
        with pytest.raises(TuneError, match=words):
            from_plan(path)
