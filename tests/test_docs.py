"""The blocks of README and docs run as they stand, and derived pages are up to date."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import foveate
from foveate import method as registry

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """Methods that a page registers are gone behind it."""
    registry.registered()
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)


def run(path: Path, names: dict) -> None:
    for i, block in enumerate(blocks(path)):
        exec(compile(block, f"{path.name} block {i}", "exec"), names)


def test_readme_runs(capsys):
    run(ROOT / "README.md", {})
    assert capsys.readouterr().out.strip() == "[64] -> [16]"


@pytest.mark.parametrize("page", ["add-a-method.md", "fine-tune.md"])
def test_pages_run(page):
    run(ROOT / "docs" / page, {})


@pytest.mark.parametrize("page", sorted((ROOT / "docs/methods").glob("*.md")), ids=lambda p: p.stem)
def test_examples_of_methods_run(page):
    item = foveate.mini.world.items("I1", "test", 1)[0]
    names = {"image": item.image(), "prompt": f"<image> {item.question}"}
    run(page, names)
    assert names["out"].shape[1] > names["inputs"]["input_ids"].shape[1]


def test_derived_pages_are_up_to_date():
    done = subprocess.run(
        [sys.executable, "-m", "docs.build", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_links_of_pages_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_import_is_light():
    heavy = ("torch", "transformers", "matplotlib", "torchvision")
    code = f"import sys, foveate; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
