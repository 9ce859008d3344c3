"""Metrics, checks, key findings, plots and the page of synthetic rows."""

import pytest

from foveate.benchmarks.acceptance import check
from foveate.benchmarks.key_findings import absent, key_findings
from foveate.benchmarks.page import command, page, write_page
from foveate.benchmarks.plot import draw
from foveate.benchmarks.results import Results
from foveate.benchmarks.settings import CONTROLS
from foveate.benchmarks.tables import _with, label, tables
from foveate.method import registered

from .synthetic import KEEPS, results, row


@pytest.fixture(scope="module")
def made():
    return results()


def test_normalised_accuracy_lies_between_no_image_and_full(made):
    assert made.no_image("I1")["name"] == "constant"
    cell = made.cell("I1", "good", 0.125)
    assert cell.accuracy == pytest.approx(0.795, abs=0.003)
    assert cell.normalised_accuracy == pytest.approx(0.85, abs=0.01)
    low, high = cell.normalised_accuracy_interval
    assert low < cell.normalised_accuracy < high
    assert cell.gain == pytest.approx(0.385, abs=0.01) and cell.gain_interval[0] > 0
    assert cell.p < 0.001
    assert made.cell("I1", "poor", 0.125).gain_interval[1] < 0


def test_random_is_the_mean_of_its_seeds(made):
    rows = made.repeats("I1", "random", 0.25)
    assert [r["seed"] for r in rows] == [0, 1, 2]
    cell = made.cell("I1", "random", 0.25)
    assert cell.accuracy == pytest.approx(sum(r["accuracy"] for r in rows) / 3)
    assert cell.gain is None


def test_summary_and_k90(made):
    good = made.summary("good")
    assert good.normalised_accuracy == pytest.approx((1.0 + 0.95 + 0.85) / 3, abs=0.01)
    assert good.k90 == pytest.approx(0.125 * 2**0.5, rel=0.05) and not good.below
    assert made.summary("oracle").below and made.summary("oracle").k90 == 0.125
    assert made.summaries[0].name == "oracle" and good.gain_interval[0] > 0


def test_differences_to_baselines_are_paired_and_reported_by_task_type():
    curves = {"downsample": dict.fromkeys(KEEPS, 0.2)}
    made = results(tasks=("I4", "I6", "I9"), curves=curves)
    lead, (low, high) = made.lead("good", "random", ["I6"])
    assert lead == pytest.approx((0.2 + 0.35 + 0.55) / 3, abs=0.02) and 0 < low < lead < high
    assert made.lead("random", "random", ["I6"]) is None
    said = " ".join(key_findings(made))
    better = "1 of 2 methods are significantly better than random and downsample, best: good"
    for kind in ("Small objects (I6)", "Counting (I4)", "Text (I9)"):
        assert f"{kind}: {better}" in said
    assert "significantly worse than random: poor" in said
    table = next(t for t in tables(made) if t.title.startswith("Difference to random"))
    assert table.header[1] == "all tasks" and table.rows[0][0] == "good"
    assert "* / +" in table.rows[0][1]


def test_a_task_that_hardly_needs_the_image_is_not_in_the_means():
    made = results(tasks=("I1", "I2"))
    rows = [r for r in made.rows if (r["task"], r["name"]) != ("I2", "full")]
    rows.append(row("I2", "full", 0.4, 1.0))
    made = Results(made.configuration, rows)
    assert made.kept_tasks() == ["I1"]
    assert any("Not included in the means: I2 locate (+20.0)" in s for s in key_findings(made))
    assert not check(made)[0].passed


def test_an_unfinished_run_has_partial_results(made):
    part = Results(made.configuration, made.rows[:9])
    assert part.tasks == ["I1"] and part.summaries
    assert all(v.passed is not True or v.number in (1, 6) for v in check(part))
    none = Results(made.configuration, made.rows[:2])
    assert none.tasks == [] and none.summaries == [] and tables(none) == []
    assert key_findings(none) == ["Too few settings are measured for a finding."]


def test_checks_pass_and_fail_by_their_thresholds():
    good = results(tasks=("I1", "I2"), curves={"random": {0.5: 0.8, 0.25: 0.5, 0.125: 0.3}})
    verdicts = {v.number: v for v in check(good)}
    assert verdicts[1].passed and verdicts[2].passed and verdicts[6].passed
    assert verdicts[2].numbers["I1"] == pytest.approx(0.455, abs=0.01)
    assert verdicts[3].passed is None and "I8" in verdicts[3].details
    # Packed positions cost about ten points on both tasks: too much on I1.
    assert verdicts[4].passed is False
    assert verdicts[4].numbers["I2"]["cost"] == pytest.approx(0.117, abs=0.02)
    bad = results(curves={"oracle": {0.125: 0.4}})
    assert check(bad)[1].passed is False


def test_a_method_that_differs_at_one_is_named():
    made = results()
    rows = [r for r in made.rows if not (r["name"] == "good" and r["keep"] == 1)]
    rows.append(row("I1", "good", 0.8, 1.0, "method", digests=["z"]))
    verdict = check(Results(made.configuration, rows))[5]
    assert verdict.passed is False and "good on I1 (different answers)" in verdict.details


def test_equal_answers_with_different_scores_at_one_are_a_difference():
    made = results()
    changed = [
        {**r, "digests": ["z"]} if r["name"] == "good" and r["keep"] == 1 else r for r in made.rows
    ]
    verdict = check(Results(made.configuration, changed))[5]
    assert verdict.passed is False and "good on I1 (same answers)" in verdict.details


def test_two_trainings_agree_or_not(made):
    other = results(weights="1" * 16)
    assert check(made, other)[4].passed and check(made, other)[4].numbers["tau"] == 1
    turned = results(
        weights="1" * 16,
        curves={"good": {k: 0.0 for k in KEEPS}, "oracle": {k: -0.1 for k in KEEPS}},
    )
    assert check(made, turned)[4].passed is False
    assert check(made, made)[4].passed is None


def test_selection_criteria_are_compared_on_measured_tasks_only():
    made = results(
        tasks=("I9",),
        curves={
            "divprune": dict.fromkeys(KEEPS, 0.4),
            "fastervlm": dict.fromkeys(KEEPS, 0.6),
        },
    )
    verdict = check(made)[2]
    assert verdict.passed is None and verdict.numbers["I9"] == pytest.approx(0.2, abs=0.02)
    assert "not available: I7, I8, I17" in verdict.details


def test_insensitive_tasks_do_not_compare_text_guidance():
    def i7(late):
        curves = {
            "fastv": dict.fromkeys(KEEPS, 0.8),
            "fastervlm": dict.fromkeys(KEEPS, 0.3),
        }
        made = results(tasks=("I7",), curves=curves, late=late)
        for r in made.rows:
            if r["name"] == "fastv":
                r["boundary"] = 2
        return check(Results(made.configuration, made.rows))[2]

    assert i7((0.0, 0.2, 0.5)).numbers["I7"] == pytest.approx(0.5, abs=0.02)
    insensitive = i7((0.0, 0.2, 0.95))
    assert not insensitive.numbers and "not conclusive" in insensitive.details


def inside(late):
    made = results(late=late)
    for r in made.rows:
        if r["name"] == "good":
            r["boundary"] = 2
    return Results(made.configuration, made.rows)


def test_methods_on_insensitive_tasks_are_marked():
    insensitive, sensitive = inside((0.0, 0.2, 0.95)), inside((0.0, 0.2, 0.5))
    assert (
        insensitive.insensitive_tasks("good") == ["I1", "I2"]
        and sensitive.insensitive_tasks("good") == []
    )
    assert any("good (layer 2) on I1, I2" in s for s in key_findings(insensitive))
    assert not any("(layer 2)" in s for s in key_findings(sensitive))
    assert "good †" in page(insensitive, []) and "good †" not in page(sensitive, [])


def test_one_insensitive_task_is_enough_for_the_mark():
    made = inside((0.0, 0.2, 0.95))
    rows = [r for r in made.rows if (r["task"], r["name"], r["k"]) != ("I2", "late_blind", 2)]
    rows.append(row("I2", "late_blind", 0.4, role="curve", k=2))
    made = Results(made.configuration, rows)
    assert made.insensitive_tasks("good") == ["I1"]
    assert label(made, "good") == "good †" and label(made, "poor") == "poor"


def test_out_of_reach_and_not_measured_have_different_symbols(made):
    lost = row("I1", "poor", 0.5, 0.125, "method", refused="keep is out of reach.")
    del lost["right"]
    gone = [("good", 0.25), ("poor", 0.125)]
    rows = [r for r in made.rows if (r["name"], r["keep"]) not in gone]
    shown = {r[0]: r for r in tables(Results(made.configuration, [*rows, lost]))[0].rows}
    assert shown["good"][1:4] == ["0.99", "–", "0.85"]
    assert shown["poor"][3] == shown["poor"][-1] == "n/a"


def test_prefill_flops_stand_beside_the_accuracy(made):
    rows = [
        {**r, "flops": 3e7} if (r["name"], r["keep"]) == ("good", 0.125) else r for r in made.rows
    ]
    table = tables(Results(made.configuration, rows))[0]
    assert table.header[-1] == "prefill FLOPs at 12.5 %"
    assert next(r for r in table.rows if r[0] == "good")[-1] == "30 %"


def test_ends_of_intervals_that_round_to_zero_have_more_digits():
    assert _with("-0.05", (-0.1, -0.0012)) == "-0.05 [-0.10, -0.001]"
    assert _with("0.03", (0.00004, 0.06)) == "0.03 [0.00, 0.06]"
    assert _with("0.03", (-0.0, 0.06)) == "0.03 [0.00, 0.06]"


def test_evidence_that_can_be_removed_without_a_loss_is_named():
    def said(accuracy, tokens):
        made = results()
        rows = [r for r in made.rows if (r["task"], r["name"]) != ("I1", "anti_oracle")]
        rows.append(row("I1", "anti_oracle", accuracy, tokens_out=tokens))
        changed = Results(made.configuration, rows)
        scale = next(t for t in tables(changed) if t.title.startswith("No-image"))
        return " ".join(key_findings(changed)), scale.rows[0][-2:]

    words, cells = said(0.9, 60.0)
    assert "On I1 attribute, removing the evidence tokens costs little" in words
    assert cells == ["1.00", "94 %"]
    assert "a normalised accuracy of 0.50 is left" in said(0.55, 60.0)[0]
    assert "evidence tokens" not in said(0.25, 60.0)[0]
    words, cells = said(0.9, 64.0)
    assert "no token counts as evidence" in words and "costs little" not in words
    assert cells == ["n/a", "n/a"]


def test_failed_checks_are_a_key_finding():
    made = results(tasks=("I9",))
    assert not any("checks of the benchmark failed" in s for s in key_findings(made))
    rows = [r for r in made.rows if r["name"] != "blind"]
    leaky = Results(made.configuration, [*rows, row("I9", "blind", 0.3)])
    assert (
        "1 of 6 checks of the benchmark failed: some tasks can be answered without"
        in (key_findings(leaky)[-1])
    )


def test_methods_and_tasks_without_a_result_are_named(made):
    names = sorted(slug for slug in registered() if slug not in CONTROLS)
    left_out = {"yopo", "vista_llama"}
    rows = [
        {**r, "name": name}
        for r in made.rows
        if r["name"] == "good"
        for name in names
        if name not in left_out
    ]
    (said,) = absent(Results(made.configuration, made.rows + rows))
    assert "vista_llama (all visual tokens are kept; needs a fine-tuned model)" in said
    assert "yopo (not part of this run)" in said and "divprune" not in said
    assert absent(made) == []
    image = Results({**made.configuration, "model": "image"}, made.rows)
    (told,) = [s for s in key_findings(image) if s.startswith("Learned by the model")]
    assert "I3 relation" in told and "I4" not in told and "I1 " not in told


def test_the_page_explains_every_task_and_links_the_models(made):
    image = Results({**made.configuration, "model": "image"}, made.rows)
    text = page(image, [], "mini.md")
    assert text.startswith("# Accuracy benchmark on the embedded model `image`\n")
    assert "[embedded](mini.md)" in text and "](mini.md)" not in page(image, [])
    assert '- I2 locate: "in which region is the gray circle?" **top-left**.' in text


def test_methods_with_identical_answers_are_named_with_the_reason():
    curve = {0.5: 0.8, 0.25: 0.6, 0.125: 0.3}
    alike = key_findings(results(curves={"fastervlm": curve, "hired": curve}))
    assert any(
        s.startswith("fastervlm and hired give identical answers") and "without tiles" in s
        for s in alike
    )
    other = key_findings(results(curves={"fastervlm": curve, "hired": {**curve, 0.125: 0.2}}))
    assert not any("identical answers" in s for s in other)


def test_key_findings_follow_from_numbers(made):
    said = " ".join(key_findings(made))
    assert "Best method before the LLM: good, with a mean normalised accuracy of 0.93" in said
    assert "0.9 or more: 1 of 2 at 50 % (good), 1 of 2 at 25 % (good), none at 12.5 %" in said
    assert "1 of 2 methods are significantly better than random token selection" in said
    assert "significantly worse: poor." in said
    assert "accuracy -9.3 points on I2 locate" in said
    assert "an oracle that keeps the tokens with the evidence reaches 0.95" in said
    assert "Headroom of 0.10 at 12.5 %" in said and "good, 0.85" in said


def test_a_method_that_costs_more_at_the_same_keep_is_named(made):
    assert not any("at equal FLOPs" in s for s in key_findings(made))
    rows = [{**r, "tokens_mean": 30.0} if r["name"] == "good" else r for r in made.rows]
    said = " ".join(key_findings(Results(made.configuration, rows)))
    assert "visual tokens per decoder layer on average (8 = 12.5 % of 64): good (30.0)" in said


def test_page_has_tables_command_checks_and_pictures(made, tmp_path):
    written = write_page(made, tmp_path / "bench.md")
    assert {p.name for p in written} == {
        "bench.md",
        "bench-pareto.svg",
        "bench-tasks.svg",
    }
    text = (tmp_path / "bench.md").read_text()
    assert command(made) in text and "](bench-pareto.svg)" in text
    for table in tables(made):
        assert f"## {table.title}" in text
        assert all(len(r) == len(table.header) for r in table.rows)
    assert "1. **passed**" in text
    assert page(made, []) == page(results(), [])


def test_equal_results_give_equal_pictures(made, tmp_path):
    first = draw(made, tmp_path / "a")
    second = draw(results(), tmp_path / "b")
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_results_as_json(made):
    import json

    plain = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert plain["kept_tasks"] == ["I1", "I2"]
    assert {c["name"] for c in plain["cells"]} >= {"good", "random", "oracle"}


def test_tasks_that_the_model_has_not_learned_are_named(made):
    assert not any("not learned" in s for s in key_findings(made))
    image = Results({**made.configuration, "model": "image"}, made.rows)
    (said,) = [s for s in key_findings(image) if "not learned" in s]
    assert "I4 count (35.0 % with the image, 10.0 % without)" in said
    assert "I1 " not in said


def test_speed_ups_are_theoretical_and_measured(made):
    by_title = {t.title: t for t in tables(made)}
    theoretical = by_title["Theoretical prefill speed-up"].rows[1]
    assert theoretical[:2] == ["good", "2.00x (32.0)"]
    # Full prefill 2 ms, at 50 % 1 ms and 0.1 ms of selection overhead.
    assert by_title["Measured prefill speed-up"].rows[1][1] == "1.82x (1.00 + 0.10)"


def test_methods_inside_the_llm_are_ranked_apart(made):
    rows = [
        {**r, "stages": ["layers"], "boundary": 2} if r["name"] == "good" else r for r in made.rows
    ]
    said = key_findings(Results(made.configuration, rows))
    assert said[0].startswith("Best method before the LLM: poor")
    assert any(s.startswith("Best method inside the LLM: good, 0.93; its first 2") for s in said)


def test_equal_reasons_for_missing_settings_stand_once(made):
    refused = {"refused": "keep is out of reach.", "right": None}
    lost = [row("I1", name, 0.5, 0.125, "method", **refused) for name in ("one", "two")]
    lost = [{k: v for k, v in r.items() if k != "right"} for r in lost]
    text = page(Results(made.configuration, made.rows + lost), [])
    assert "- one, two at 12.5 %. keep is out of reach." in text


def test_a_composition_says_what_its_ratio_means(made):
    rows = [{**r, "name": "good+better"} if r["name"] == "good" else r for r in made.rows]
    assert "a+b: both methods" in page(Results(made.configuration, rows), [])
    assert "a+b: both methods" not in page(made, [])
