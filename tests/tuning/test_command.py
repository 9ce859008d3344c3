"""`foveate tune` and `ask --plan` on the command line."""

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from foveate.cli import app, tune_output
from foveate.mini import world
from foveate.mini.world import exports
from foveate.tuning import tuner
from foveate.tuning.evaluations import Score
from foveate.tuning.search import Search


def call(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def quick(model, *more):
    return call(
        *("tune", "--model", model, "--world", "I1", "--n", 8, "--methods", "divprune"),
        *("--keep", "50%", "--max-drop", "90%", *more),
    )


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("tune") / "plan.json"
    return out, quick(folder, "--out", out)


def test_a_plan_is_written_and_used_by_ask(folder, done):
    out, result = done
    assert result.exit_code == 0, result.output
    assert "DivPrune(keep=0.5)" in result.stdout and "held-out" in result.stdout
    assert "settings measured" in result.stdout
    again = quick(folder, "--out", out, "--json")
    assert json.loads(again.stdout) == json.loads(out.read_text())
    picture = out.parent / "a.png"
    world.items("I1", "val", 1)[0].image().save(picture)
    asked = call("ask", picture, "-q", "what colour?", "--model", folder, "--plan", out, "--json")
    assert asked.exit_code == 0, asked.output
    assert json.loads(asked.stdout)["report"]["tokens_out"] == [32]


def sentence(result, *words):
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    for word in words:
        assert word in lines[0], lines[0]


def test_bad_input(folder, done, tmp_path):
    out = tmp_path / "plan.json"
    model = ("tune", "--model", folder, "--out", out)
    sentence(call(*model), "No samples", "--data", "--world")
    sentence(call(*model, "--world", "I99"), "I99")
    sentence(call(*model, "--world", ""), "--world")
    sentence(call(*model, "--data", tmp_path / "no.jsonl"), "no file")
    (tmp_path / "empty.jsonl").write_text("")
    sentence(call(*model, "--data", tmp_path / "empty.jsonl"), "has no samples")
    sentence(quick(folder, "--out", out, "--methods", "divprun"), "did you mean 'divprune'")
    sentence(quick(folder, "--out", out, "--max-drop", "200%"), "max_drop=2.0")
    sentence(quick(folder, "--out", out, "--max-drop", "some"), "--max-drop")
    sentence(quick(folder, "--out", out, "--n", 10**6), "--n 1000000")
    sentence(quick(folder, "--out", tmp_path / "no" / "plan.json"), "no folder")
    sentence(quick(folder, "--out", done[0], "--seed", 1), "seed=0 instead of 1")
    sentence(quick("nanoo", "--out", out), "nanoo")
    assert not out.exists()


def test_a_plan_replaces_the_method_options(folder, done, tmp_path):
    picture = tmp_path / "a.png"
    world.items("I1", "val", 1)[0].image().save(picture)
    asked = ("ask", picture, "-q", "what colour?", "--model", folder)
    sentence(call(*asked, "--plan", done[0], "--keep", "0.5"), "--plan already names a method")
    sentence(call(*asked, "--plan", tmp_path / "no.json"), "no plan")
    plan = {"plan": 1, "model": "m", "layers": 4}
    plan["setting"] = {"method": "gsearch", "schedule": [1.0, 0.5, 0.5, 0.2]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    sentence(
        call(*asked, "--plan", tmp_path / "plan.json"),
        "has 4 ratios, but the model has 2 decoder layers",
    )


def test_questions_in_a_file(folder, tmp_path):
    (data,) = exports.write(world.items("I1", "val", 6), tmp_path / "data")
    words = ("--methods", "divprune", "--keep", "0.5", "--max-drop", "90%", "--json")
    out = ("--out", tmp_path / "plan.json")
    result = call("tune", "--model", folder, "--data", data, *words, *out)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["held_out"]["n"] == 3


def test_the_pareto_front_is_shown_during_the_search(monkeypatch):
    drawn = StringIO()
    terminal = Console(file=drawn, force_terminal=True, width=120)
    monkeypatch.setattr(tune_output, "Console", lambda stderr: terminal)
    with tune_output.Watcher(show=True) as watch:
        watch(Score({"methods": []}, "bare model", np.ones(4, dtype=int)))
        cheap = {"method": "divprune", "keep": 0.5}
        watch(Score(cheap, "sweep", np.array([1, 1, 1, 0]), cost=0.5))
    assert "2 settings measured, last: sweep" in drawn.getvalue()
    assert "DivPrune(keep=0.5)" in drawn.getvalue() and "-25.0" in drawn.getvalue()


def test_no_setting_within_max_drop_exits_with_1(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Search, "good", lambda self, score: False)
    result = quick(folder, "--out", tmp_path / "plan.json")
    assert result.exit_code == 1 and "No cheaper setting" in result.stdout
    assert not (tmp_path / "plan.json").exists()


def test_a_larger_drop_on_the_held_out_split_is_a_warning(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tuner, "accuracy_drop", lambda full, right: (0.95, (0.9, 1.0)))
    result = quick(folder, "--out", tmp_path / "plan.json")
    assert result.exit_code == 0 and "held-out split the drop is larger" in " ".join(
        result.stdout.split()
    )
    assert (tmp_path / "plan.json").exists()
