"""`foveate ask --overlay FILE --heatmap FILE`: mistakes end early, and the answer is never lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from foveate.errors import FoveateError
from foveate.method import registered
from foveate.view.ranking import ranks_tokens
from tests.methods.made import made
from tests.methods.test_scores import UNSCORED
from tests.test_cli import ask, run, tiny

__all__ = ["tiny"]

FASTV = ("--method", "fastv")


def refused(folder: Path, *arguments: object) -> str:
    """The error of a call whose model does not exist: it came before the model was loaded."""
    Image.new("RGB", (64, 64)).save(folder / "photo.png")
    fixed = ["ask", folder / "photo.png", "-q", "What?", "--model", folder / "missing"]
    result = run(*fixed, *arguments, code=2)
    assert result.stderr.count("\n") == 1 and "missing" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("arguments", [("--method", "divprune"), ("--method", "tome+dart")])
def test_a_method_without_scores_has_no_heat_map(arguments, tmp_path):
    error = refused(tmp_path, *arguments, "--heatmap", tmp_path / "h.png")
    assert "does not rank tokens by a score, so --heatmap has nothing to draw" in error


def test_no_method_has_no_heat_map(tmp_path):
    error = refused(tmp_path, "--heatmap", tmp_path / "h.png")
    assert "The full model does not rank tokens" in error and "with --method" in error


@pytest.mark.parametrize("option", ["--overlay", "--heatmap"])
def test_a_folder_that_can_not_be_written_is_named(option, tmp_path):
    error = refused(tmp_path, *FASTV, option, "/proc/o.png")
    assert f"{option} '/proc/o.png': nothing can be written to '/proc'" in error
    assert not Path("/proc/o.png").exists()


def test_both_pictures_need_a_file_each(tmp_path):
    (tmp_path / "sub").mkdir()
    one, same = tmp_path / "both.png", tmp_path / "sub" / ".." / "both.png"
    error = refused(tmp_path, *FASTV, "--overlay", one, "--heatmap", same)
    assert "--overlay and --heatmap both name" in error


def test_nothing_is_written_by_the_check(tmp_path):
    refused(tmp_path, "--overlay", tmp_path / "o.png", "--heatmap", tmp_path / "h.png")
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png"}


def test_the_methods_without_scores_are_known_without_a_model():
    assert {slug for slug in registered() if not ranks_tokens(made(slug))} == UNSCORED
    assert ranks_tokens(made("fastv") + made("tome"))


def test_the_answer_is_printed_when_a_picture_fails(tiny, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise FoveateError("this call can't be drawn.")

    monkeypatch.setattr("foveate.view.heatmap_sheet", fails)
    drawn = ["--overlay", tmp_path / "o.png", "--heatmap", tmp_path / "h.png"]
    result = ask(tiny, *FASTV, *drawn, code=2)
    assert "visual tokens" in result.stdout and str(tmp_path / "h.png") not in result.stdout
    assert "can't be drawn" in result.stderr and (tmp_path / "o.png").exists()
    found = json.loads(ask(tiny, *FASTV, *drawn, "--json", code=2).stdout)
    assert "answer" in found and found["heatmap"] is None and found["overlay"]
