"""The blocks of README and docs run as they stand, and derived pages are up to date."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import foveate
from foveate import method as registry
from tests.checkpoints import save_checkpoint

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """Methods that a page registers are gone behind it."""
    registry.registered()
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)


def run(path: Path, names: dict, **other: str) -> None:
    """Run the blocks of a page one after the other; `other` replaces text in them."""
    for i, block in enumerate(blocks(path)):
        for old, new in other.items():
            block = block.replace(old, new)
        exec(compile(block, f"{path.name} block {i}", "exec"), names)


def test_readme_runs(capsys, tmp_path, monkeypatch):
    """With a tiny checkpoint of the same family on the CPU in place of the large one on a GPU."""
    save_checkpoint("qwen2_5_vl", tmp_path / "checkpoint")
    foveate.mini.world.items("I1", "test", 1)[0].image().save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    assert '"Qwen/Qwen2.5-VL-7B-Instruct"' in blocks(ROOT / "README.md")[0]
    other = {"Qwen/Qwen2.5-VL-7B-Instruct": str(tmp_path / "checkpoint"), '"cuda"': '"cpu"'}
    run(ROOT / "README.md", {}, **other)
    (shown,) = re.findall(r"^```text\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert shown in capsys.readouterr().out


PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if blocks(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_pages_run(page):
    run(page, {})


EVERY_PAGE = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EVERY_PAGE += sorted((ROOT / "perf/results").glob("*.md"))
EVERY_PAGE += sorted((ROOT / "foveate").rglob("*.md"))


def commands(page: Path) -> list[list[str]]:
    """Command lines of `foveate` in the shell blocks and the inline code of a page."""
    text = page.read_text()
    shell = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in shell for line in block.replace("\\\n", " ").split("\n")]
    lines += re.findall(r"(?<!`)`(foveate [^`\n]+)`(?!`)", text)
    return [
        shlex.split(line, comments=True)[1:]
        for line in lines
        if line.strip().startswith("foveate ") and "..." not in line
    ]


@pytest.mark.parametrize(
    "page", [p for p in EVERY_PAGE if commands(p)], ids=lambda p: str(p.relative_to(ROOT))
)
def test_commands_of_pages_exist(page):
    """Every command and option that a page names is one that the command line has."""
    from typer.main import get_command

    from foveate.cli import app

    group = get_command(app)
    for name, *arguments in commands(page):
        assert name in group.commands, f"foveate {name}"
        command = group.commands[name]
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        named = {a.split("=")[0] for a in arguments if a.startswith("--")} - {"--help"}
        assert named <= options, f"foveate {name} has no {named - options}"


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
