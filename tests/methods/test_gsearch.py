import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import foveate
from foveate.errors import BudgetError, InvalidParameter
from foveate.methods.layers.gsearch import GSearch, sigmoid_rates
from tests.families import zoo

RATES = (1.0, 0.8, 0.8, 0.3, 0.0)


def run(name, method, samples=1):
    batch = zoo.batch(name, [zoo.sample(name, "image", i) for i in range(samples)])
    with foveate.attach(zoo.model(name), method) as att, torch.no_grad():
        out = zoo.model(name)(**batch, use_cache=True)
    return out, att.report


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_every_layer_reads_the_floor_of_its_rate(name):
    out, report = run(name, GSearch(schedule=RATES), 2)
    bare, _ = run(name, GSearch(schedule=(1.0,) * 5), 2)
    for i, row in enumerate(report.tokens_by_layer):
        assert row == [int(rate * report.tokens_in[i]) for rate in RATES]
    text = [n - row[0] for n, row in zip(report.prompt_tokens, report.tokens_by_layer, strict=True)]
    for layer in range(5):
        held = out.past_key_values.layers[layer].keys.shape[2]
        rows = zip(text, report.tokens_by_layer, strict=True)
        assert held == max(t + row[layer] for t, row in rows)
    assert bare.past_key_values.layers[4].keys.shape[2] > held


def test_all_rates_one_is_the_bare_model():
    batch = zoo.batch("llava", [zoo.sample("llava", "image")])
    model = zoo.model("llava")
    with torch.no_grad():
        bare = model(**batch).logits
    out, report = run("llava", GSearch(schedule=(1.0,) * 5))
    assert torch.equal(out.logits, bare) and report.flops == report.flops_full
    assert GSearch(schedule=(1.0, 1.0)).boundaries(2) == ()


def test_nothing_is_ranked_where_the_rate_stays():
    assert GSearch(schedule=RATES).boundaries(5) == (1, 3, 4)


def test_the_words_behind_the_picture_ask():
    model, batch = zoo.model("llava"), zoo.batch("llava", [zoo.sample("llava", "image")])
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            seen = model(**batch, output_attentions=True).attentions[0][0].mean(0)
    finally:
        model.set_attn_implementation("sdpa")
    visual = (batch["input_ids"][0] == zoo.IMAGE).nonzero()[:, 0]
    asked = {"text": slice(int(visual[-1]) + 1, None), "last": slice(-1, None)}
    for rows, span in asked.items():
        _, report = run("llava", GSearch(schedule=(1.0, *[0.5] * 4), rows=rows))
        scores = seen[span].mean(0)[visual]
        best = scores.argsort(descending=True, stable=True)[: len(visual) // 2].sort().values
        assert torch.equal(report.kept[0], best), rows


@settings(deadline=None)
@given(
    layers=st.integers(2, 48),
    slope=st.floats(0.05, 5),
    share=st.floats(0.01, 0.99),
    floor=st.sampled_from([0.0, 0.1]),
)
def test_the_sigmoid_meets_its_budget_for_every_slope(layers, slope, share, floor):
    least = (1 + (layers - 1) * floor) / layers
    if share <= least:
        with pytest.raises(BudgetError, match="raise keep"):
            sigmoid_rates(share, layers, -slope, floor)
        return
    rates = sigmoid_rates(share, layers, -slope, floor)
    assert sum(rates) / layers == pytest.approx(share, abs=1e-6)
    assert list(rates) == sorted(rates, reverse=True) and rates[0] == 1
    assert all(floor <= r <= 1 for r in rates)


def test_slopes_run_from_flat_to_a_step():
    flat, step = sigmoid_rates(0.5, 8, -0.05), sigmoid_rates(0.5, 8, -5.0)
    assert max(flat[1:]) - min(flat[1:]) < 0.1
    assert step[3] > 0.9 and step[5] < 0.01


def test_keep_is_a_mean_or_a_count_per_item():
    method = GSearch(keep=0.5)
    assert sum(method.rates(16, 0.5)) / 16 == pytest.approx(0.5)
    assert GSearch(keep=1.0).boundaries(4) == () and method.boundaries(4) == (1, 2, 3)
    _, report = run("llava", GSearch(keep=8))
    entered, layers = report.tokens_in[0], len(report.tokens_by_layer[0])
    assert abs(sum(report.tokens_by_layer[0]) - 8 * layers) < layers and entered > 8


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"schedule": (1.0, 0.5, 0.6)}, "from 0.5 to 0.6 at layer 2"),
        ({"schedule": (1.0, -0.1)}, "at layer 1"),
        ({"schedule": (0.5, 0.5)}, "start it with 1.0"),
        ({"schedule": ()}, "start it with 1.0"),
        ({"kappa": 0.0}, "kappa=0.0"),
        ({"floor": 1.0}, "floor=1.0"),
        ({"rows": "first"}, "rows='first'"),
    ],
)
def test_what_is_no_schedule_is_refused(parameters, words):
    with pytest.raises(InvalidParameter, match=words):
        GSearch(**parameters)


def test_a_schedule_has_a_rate_for_every_layer():
    with pytest.raises(InvalidParameter, match="3 ratios, but the model has 5 decoder layers"):
        foveate.attach(zoo.model("llava"), GSearch(schedule=(1.0, 0.5, 0.5)))
