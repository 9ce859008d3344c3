"""The pictures of the method pages: there is one per method, and the command draws it again."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import foveate
from docs.attention_pictures import RULES
from docs.pictures import FOLDER, README_CASE, png, sheet
from foveate import demo

ROOT = Path(__file__).resolve().parent.parent
AVAILABLE = [info.slug for info in foveate.catalog() if info.status == "available"]


def differing(one: Image.Image, two: Image.Image) -> float:
    """Share of the pixels that differ; glyphs and last bits depend on the machine."""
    if one.size != two.size:
        return 1.0
    a, b = (np.asarray(image.convert("RGB"), int) for image in (one, two))
    return float((np.abs(a - b).max(2) > 16).mean())


@pytest.mark.parametrize("slug", AVAILABLE)
def test_every_method_has_a_small_picture(slug):
    path = FOLDER / f"{slug}.png"
    assert path.stat().st_size < 60_000, "run make docs"
    picture = Image.open(path)
    assert picture.mode == "P" and min(picture.size) >= 250 and picture.width <= 1400


def test_there_is_no_picture_of_anything_else():
    assert {path.stem for path in FOLDER.glob("*.png")} == set(AVAILABLE)
    assert set(RULES) <= set(AVAILABLE)


@pytest.mark.parametrize("slug", ["divprune", "tc_llava"])
def test_a_picture_is_up_to_date(slug):
    drawn = Image.open(BytesIO(png(sheet(slug))))
    assert differing(drawn, Image.open(FOLDER / f"{slug}.png")) < 0.01


@pytest.mark.slow
def test_the_command_draws_every_picture_again(tmp_path):
    folder = tmp_path / "methods"
    command = [sys.executable, "-m", "docs.pictures", "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    for name in ("../kept.png", *(f"{slug}.png" for slug in AVAILABLE)):
        old, new = (Image.open(place / name) for place in (FOLDER, folder))
        assert differing(old, new) < 0.01, name


def test_the_picture_of_the_readme_shows_correct_answers_at_25_percent(monkeypatch):
    monkeypatch.setattr(demo, "REPEATS", 1)
    model, processor = foveate.mini("nano")
    case = next(case for case in demo.cases() if case.name == README_CASE)
    found = demo.rows(model, processor, case, list(demo.METHODS))
    assert all(demo.is_correct(case, row) for row in found if row.method.keep in (1.0, 0.25))
    assert np.asarray(case.image.convert("L")).mean() > 150, "dropped patches stand out"
    drawn = Image.open(FOLDER.parent / "kept.png")
    assert drawn.width <= demo.WIDTH
    assert differing(demo.sheet(case, found, processor), drawn) < 0.02
