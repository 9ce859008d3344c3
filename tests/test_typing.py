"""Editors and type checkers know every method and its parameters."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import foveate
from foveate.method import class_names

ROOT = Path(__file__).resolve().parent.parent

GOOD = """
import torch
import foveate

model = torch.nn.Linear(1, 1)
with foveate.attach(model, foveate.DivPrune(keep=64)) as att:
    kept: list[int] = att.report.tokens_out
both: foveate.Method = foveate.FasterVLM(keep=0.5) + foveate.PyramidDrop()
foveate.attach(model, "divprune", keep=64).detach()
foveate.attach(model, both, full_logits=True).detach()
foveate.VisPruner(keep=0.25, important_ratio=0.5)
foveate.DivPrune(keep=0.5) + "fastv"
embedded, processor = foveate.mini("nano")
image = foveate.mini.world.items("I1", "test", 1)[0].image()
compared = foveate.compare(embedded, processor, image, "what?", [foveate.DivPrune(), "fastv"])
first: float = compared.rows[0].ttft
trained: foveate.TrainedMethod = foveate.DyVTE(weights="nano")
"""
# Each is one mistake, with the words of it that the checker must repeat.
WRONG = {
    "foveate.DivPrune(kep=64)": "kep",
    "foveate.DivPrune(keep=[64])": "keep",
    "foveate.VisPruner(important_rato=0.5)": "important_rato",
    'foveate.AIM(metric="feature")': "feature",
    "foveate.DivPrun(keep=64)": "DivPrun",
    "foveate.attach(model, 3)": "Method",
    "foveate.attach(model, foveate.DivPrune)": "DivPrune",
    "foveate.DivPrune(keep=64).kep": "kep",
    "foveate.DivPrune(keep=64).keep = 3": "keep",
    "3 + foveate.DivPrune(keep=64)": "Operator",
    "foveate.mini(3)": "name",
    'foveate.compare(embedded, processor, image, "what?", [], repeat=3)': "repeat",
    "foveate.Report().tokens_left": "tokens_left",
}


@pytest.fixture(scope="module")
def errors(tmp_path_factory) -> list[tuple[int, str]]:
    """Line and message of every error that pyright finds: in GOOD first, then in WRONG."""
    folder = tmp_path_factory.mktemp("typing")
    (folder / "snippet.py").write_text(GOOD + "\n".join(WRONG) + "\n")
    settings = {"pythonVersion": "3.11", "extraPaths": [str(ROOT)], "include": ["snippet.py"]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run([*command, "-p", str(folder)], capture_output=True, text=True)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [
        (entry["range"]["start"]["line"], entry["message"])
        for entry in found
        if entry["severity"] == "error"
    ]


def test_right_code_has_no_errors(errors):
    assert [message for line, message in errors if line < GOOD.count("\n")] == []


@pytest.mark.parametrize("i", range(len(WRONG)), ids=list(WRONG))
def test_a_mistake_is_found(errors, i):
    here = [message for line, message in errors if line == GOOD.count("\n") + i]
    assert any(list(WRONG.values())[i] in message for message in here), here


def test_stub_has_every_public_name():
    text = (ROOT / "foveate/__init__.pyi").read_text()
    for name in {*foveate._HOMES, *(name for name, _ in class_names() if not name.startswith("_"))}:
        assert re.search(rf"^(from .* import {name} as |class |){name}(\n|\(|: )", text, re.M), name
