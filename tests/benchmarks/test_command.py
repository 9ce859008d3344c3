"""`foveate bench` on the command line: a run, and one sentence per error."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from foveate.benchmarks import runner
from foveate.cli import app


def call(*words):
    return CliRunner().invoke(app, ["bench", *map(str, words)])


def small(folder, out, *more):
    return call(
        *("--model", folder, "--n", 3, "--tasks", "I1", "--keep", "25%", "--methods", "divprune"),
        *("--out", out, *more),
    )


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    return out, small(folder, out, "--json")


def test_json(done):
    out, result = done
    assert result.exit_code == 0, result.output
    plain = json.loads(result.stdout)
    assert plain["configuration"]["n"] == 3 and list(plain["tasks"]) == ["I1"]
    assert {c["name"] for c in plain["cells"]} >= {"divprune", "oracle", "random"}
    assert (out / "bench-pareto.svg").exists() and (out / "bench-tasks.png").exists()


def test_tables_checks_and_page(done, tmp_path):
    out, _ = done
    page = tmp_path / "bench.md"
    result = call("--no-measure", "--out", out, "--page", page, "--check")
    # An untrained model has no span, so the first check fails, and with it the command.
    assert result.exit_code == 1, result.output
    assert "Accuracy on I1 attribute" in result.stdout and "1 failed" in result.stdout
    assert "### Checks of the benchmark" in page.read_text()


def test_without_a_plot(done, tmp_path):
    page = tmp_path / "bench.md"
    result = call("--no-measure", "--out", done[0], "--no-plot", "--page", page)
    assert result.exit_code == 0 and [p.name for p in tmp_path.iterdir()] == ["bench.md"]


def sentence(result, *words):
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    for word in words:
        assert word in lines[0]


def test_bad_input(folder, done, tmp_path):
    out = tmp_path / "run"
    sentence(call("--methods", "divprun", "--out", out), "did you mean 'divprune'")
    sentence(call("--model", "nanoo", "--out", out), "nanoo")
    sentence(small(folder, out, "--tasks", "I10"), "task of", "did you mean 'I1'")
    sentence(small(folder, out, "--split", "train"), "test split")
    sentence(small(folder, out, "--keep", "zero"), "not a valid budget")
    sentence(small(folder, done[0], "--n", 4), "n=3 instead of 4", "--out")
    sentence(call("--no-measure", "--out", tmp_path), "no results of foveate bench")
    (tmp_path / "run.json").write_text("[]")
    sentence(call("--no-measure", "--out", tmp_path), "no results of foveate bench")
    sentence(small(folder, out, "--page", tmp_path / "no" / "page.md"), "no folder")
    assert not out.exists()


def test_weights_of_another_world(folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    (model / "card.json").write_text(json.dumps({"name": "old", "world": "w0"}))
    sentence(small(model, tmp_path / "run"), "world 'w0'", "'w1'")
    (model / "card.json").write_text("{")
    sentence(small(model, tmp_path / "run"), "cannot be read")


def test_an_unwritable_folder(folder, tmp_path):
    (tmp_path / "file").write_text("")
    sentence(small(folder, tmp_path / "file" / "run"), "can't be written")


def test_interruption_says_how_to_go_on(folder, tmp_path, monkeypatch):
    measured = runner._measured
    left = iter(range(2))

    def interrupted(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return measured(*args)

    monkeypatch.setattr(runner, "_measured", interrupted)
    result = small(folder, tmp_path)
    assert result.exit_code == 130
    assert "2 finished settings" in result.stderr and "run the same command again" in result.stderr
    monkeypatch.undo()
    assert small(folder, tmp_path, "--json").exit_code == 0


def test_a_composition_is_measured_at_every_ratio(folder, tmp_path):
    both = ("--methods", "fastervlm + pyramiddrop", "--keep", "75%", "--json", "--no-plot")
    result = small(folder, tmp_path, *both)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    (row,) = [r for r in rows if r["name"] == "fastervlm+pyramiddrop" and r["keep"] == 0.75]
    # FasterVLM passes 48 of 64 tokens on, PyramidDrop keeps 36 of them per layer on average.
    assert row["tokens_mean"] == 36
    assert [m["method"] for m in row["method"]["methods"]] == ["fastervlm", "pyramiddrop"]


def test_members_that_do_not_exist_and_options_that_contradict(folder, tmp_path):
    def refused(*words):
        return call("--model", folder, "--out", tmp_path / "run", *words)

    sentence(refused("--methods", "fastervlm+pyramiddrob"), "did you mean 'pyramiddrop'")
    sentence(refused("--methods", "fastervlm+prunevid"), "'prunevid'", "planned, not available yet")
    sentence(refused("--methods", "all,fastv"), "'all' already contains")
    sentence(refused("--full", "--n", 5), "--full", "omit --methods and --n")
    sentence(refused("--against", tmp_path), "add --check")
    assert not (tmp_path / "run").exists()
