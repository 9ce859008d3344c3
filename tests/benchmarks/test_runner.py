"""A run on disk: its rows, and how it continues after an interruption."""

import errno
import json

import pytest

from foveate import benchmarks
from foveate.benchmarks import run_folder, runner
from foveate.benchmarks.run_folder import RunFolder
from foveate.errors import FoveateError

ASKED = {"methods": ["divprune", "pyramiddrop"], "keep": [0.25], "tasks": ["I1"], "n": 4}


@pytest.fixture(scope="module")
def whole(pair, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, benchmarks.run(*pair, out=out, **ASKED)


def settings(rows):
    return [(r["task"], r["name"], r["keep"], r["seed"], r["k"], r.get("right")) for r in rows]


def test_controls_are_always_there(whole):
    _, results = whole
    names = {r["name"] for r in results.rows}
    assert {"constant", "blind", "full", "oracle", "anti_oracle", "late_blind"} <= names
    assert {"random", "random_original", "uniform", "grid_pool", "downsample"} <= names
    seeds = [r["seed"] for r in results.rows if r["name"] == "random" and r["keep"] == 0.25]
    assert seeds == [0, 1, 2]
    assert [r["k"] for r in results.rows if r["name"] == "late_blind"] == [0, 1]


def test_rows_say_what_made_them(whole):
    out, results = whole
    lines = (out / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == results.rows
    row = next(r for r in results.rows if r["name"] == "divprune" and r["keep"] == 0.25)
    assert row["method"]["method"] == "divprune" and row["method"]["keep"] == 0.25
    assert {"foveate", "torch", "transformers"} <= set(row["run"]["versions"])
    assert row["flops"] > row["method_flops"] > 0
    assert row["run"]["world"] == "w1" and row["run"]["weights"]
    assert row["tokens_out"] == 16 and len(row["right"]) == 4


def test_a_refused_setting_is_stored_with_its_reason(pair, tmp_path):
    results = benchmarks.run(*pair, out=tmp_path, **{**ASKED, "keep": [0.03125]})
    assert "out of reach" in results.refusals()["pyramiddrop", 0.03125]
    assert results.cell("I1", "pyramiddrop", 0.03125) is None


def test_keep_of_one_is_full_to_the_last_bit(whole):
    verdict = benchmarks.check(whole[1])[5]
    assert verdict.passed and verdict.numbers["settings"] and not verdict.numbers["different"]


def test_a_second_run_measures_nothing(pair, whole, monkeypatch):
    monkeypatch.setattr(runner, "evaluate_method", None)
    out, results = whole
    assert benchmarks.run(*pair, out=out, **ASKED).rows == results.rows


def test_more_methods_can_be_added_to_a_run(pair, whole, tmp_path):
    out, results = whole
    for name in ("run.json", "results.jsonl"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    more = benchmarks.run(*pair, out=tmp_path, **{**ASKED, "methods": ["fastervlm"]})
    assert more.rows[: len(results.rows)] == results.rows
    assert {r["name"] for r in more.rows[len(results.rows) :]} == {"fastervlm"}


@pytest.mark.parametrize("cut", [1, 40])
def test_a_kill_in_the_middle_of_a_line_costs_one_setting(pair, whole, tmp_path, cut):
    out, results = whole
    (tmp_path / "run.json").write_bytes((out / "run.json").read_bytes())
    data = (out / "results.jsonl").read_bytes()
    (tmp_path / "results.jsonl").write_bytes(data[:-cut])
    again = benchmarks.run(*pair, out=tmp_path, **ASKED)
    assert settings(again.rows) == settings(results.rows)
    assert len(RunFolder.load(tmp_path).rows) == len(results.rows)


def test_a_broken_line_in_the_middle_is_named(whole, tmp_path):
    out, _ = whole
    (tmp_path / "run.json").write_bytes((out / "run.json").read_bytes())
    lines = (out / "results.jsonl").read_bytes().splitlines(keepends=True)
    lines[2] = b'{"task": "I1"\n'
    (tmp_path / "results.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(FoveateError, match="Line 3"):
        benchmarks.Results.load(tmp_path)


def test_another_configuration_is_refused(pair, whole, monkeypatch):
    out, results = whole
    before = (out / "results.jsonl").read_bytes()
    with pytest.raises(FoveateError, match="n=4 instead of 5"):
        benchmarks.run(*pair, out=out, **{**ASKED, "n": 5})
    with monkeypatch.context() as other:
        other.setattr(runner.transformers, "__version__", "5.0.0")
        with pytest.raises(FoveateError, match="transformers='5.* instead of '5.0.0'"):
            benchmarks.run(*pair, out=out, **ASKED)
    with pytest.raises(FoveateError, match="mode='likelihood'"):
        benchmarks.run(*pair, out=out, mode="generate", **ASKED)
    assert (out / "results.jsonl").read_bytes() == before


def test_a_full_disk_keeps_what_was_written(pair, whole, tmp_path, monkeypatch):
    write = run_folder._append
    left = iter(range(3))

    def full(path, line):
        if next(left, None) is None:
            write(path, line[:20])
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, line)

    monkeypatch.setattr(run_folder, "_append", full)
    with pytest.raises(FoveateError, match="No space left on device.*3 finished"):
        benchmarks.run(*pair, out=tmp_path / "run", **ASKED)
    monkeypatch.undo()
    assert len(RunFolder.load(tmp_path / "run").rows) == 3
    again = benchmarks.run(*pair, out=tmp_path / "run", **ASKED)
    assert settings(again.rows) == settings(whole[1].rows)


def test_an_interruption_keeps_finished_settings(pair, whole, tmp_path, monkeypatch):
    measured = runner._measured
    left = iter(range(4))

    def interrupted(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return measured(*args)

    monkeypatch.setattr(runner, "_measured", interrupted)
    with pytest.raises(KeyboardInterrupt):
        benchmarks.run(*pair, out=tmp_path, **ASKED)
    monkeypatch.undo()
    assert sum(r["kind"] == "setting" for r in RunFolder.load(tmp_path).rows) == 4
    again = benchmarks.run(*pair, out=tmp_path, **ASKED)
    assert settings(again.rows) == settings(whole[1].rows)
    assert "_foveate" not in vars(pair[0].model)


def test_a_method_with_parameters(pair, tmp_path):
    from foveate.method import create

    mine = create("divprune", positions="original")
    results = benchmarks.run(*pair, out=tmp_path, **{**ASKED, "methods": [mine]})
    assert "DivPrune(positions='original')" in results.names


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"methods": ["divprun"]}, "did you mean 'divprune'"),
        ({"tasks": ["I11"]}, "did you mean 'I1'"),
        ({"mode": "guess"}, "mode"),
        ({"split": "train"}, "test split"),
        ({"n": 0}, "1 <= n <= 1000"),
        ({"n": 5000}, "1 <= n <= 1000"),
        ({"keep": [0.0]}, "not a valid ratio"),
        ({"keep": [65]}, "64 visual tokens"),
    ],
)
def test_wrong_arguments(pair, tmp_path, wrong, words):
    with pytest.raises(FoveateError, match=words):
        benchmarks.run(*pair, out=tmp_path / "run", **{**ASKED, **wrong})
    assert not (tmp_path / "run").exists()


def test_a_token_count_becomes_a_ratio(under_test):
    from foveate.benchmarks.settings import retention_ratios

    assert retention_ratios([16, 0.5, 0.25], 64) == (1.0, 0.5, 0.25)
