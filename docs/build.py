"""`python -m docs.build`: write what can be derived from the code, with `--check` only compare.

The tables of README.md (methods, speed), the index docs/methods.md, one page per available method,
the bench pages from their stored rows, and the type stub of the package.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import foveate
from docs import choose, payoff, runs
from docs.markers import insert
from docs.stubs import stub
from foveate.benchmarks.tables import number
from foveate.catalogue import describe
from foveate.method import method_class
from foveate.method_docs import method_doc
from foveate.systems import MethodInfo, where

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = {
    "Rule": "Rule",
    "Differences": "Differences from paper and official code",
    "Notes": "Notes",
}
EXAMPLE_INPUTS = '# image: a PIL image, prompt: a text such as "<image> what is in the picture?"'


def pages() -> dict[Path, str]:
    """Every derived file with its text."""
    made = {ROOT / "README.md": _readme(), ROOT / "docs/methods.md": _index()}
    made[ROOT / "foveate/__init__.pyi"] = stub()
    made[choose.PAGE] = choose.page()
    made |= runs.bench_pages()
    made[ROOT / "foveate/measured.json"] = json.dumps(_measured(), indent=1) + "\n"
    for info in foveate.catalog():
        if info.status == "available":
            made[ROOT / f"docs/methods/{info.slug}.md"] = _page(info.slug)
    return made


def _readme() -> str:
    text = insert((ROOT / "README.md").read_text(), "payoff", payoff.table())
    lines = [
        "| method | where | year | what it does | accuracy at 25 % |",
        "|---|---|---|---|--:|",
    ]
    for info in _available():
        name = info.name if info.year else info.slug
        lines.append(
            f"| [{name}](docs/methods/{info.slug}.md) | {where(info.stages)} "
            f"| {info.year or 'baseline'} | {_summary(info.slug)} | {_accuracy(info.slug)} |"
        )
    return insert(text, "methods", "\n".join(lines))


def _accuracy(slug: str) -> str:
    """Normalised accuracy on the embedded image model; a dash where there is none."""
    found = _measured().get(slug, {}).get("image", {}).get("0.25")
    return "–" if found is None else number(found)


def _index() -> str:
    infos = foveate.catalog()
    ready = _available()
    lines = [
        "# All systems",
        "",
        f"foveate lists {len(infos)} systems and baselines: {len(ready)} are available, the others "
        "are planned. `make docs` writes this page; `foveate methods` prints the same list.",
        "",
        "## Available",
        "",
        "| method | slug | where | year | what it does | paper |",
        "|---|---|---|---|---|---|",
    ]
    for i in ready:
        lines.append(
            f"| [{i.name}](methods/{i.slug}.md) | `{i.slug}` | {where(i.stages)} "
            f"| {i.year or 'baseline'} | {_summary(i.slug)} | {i.paper} |"
        )
    lines += [
        "",
        "## Planned, not available yet",
        "",
        "| system | slug | where | year | paper |",
        "|---|---|---|---|---|",
    ]
    for i in infos:
        if i.status == "planned":
            lines.append(
                f"| {i.name} | `{i.slug}` | {where(i.stages)} | {i.year or ''} "
                f"| {i.title}, {i.paper} |"
            )
    return "\n".join(lines) + "\n"


def _available() -> list[MethodInfo]:
    return [info for info in foveate.catalog() if info.status == "available"]


def _summary(slug: str) -> str:
    return method_doc(method_class(slug)).summary


@cache
def _measured() -> dict[str, dict[str, dict[str, float]]]:
    """Mean normalised accuracy over the kept tasks in the runs in docs, by slug, model and keep.

    Not rounded, so that every page rounds the same figure once.
    """
    made: dict[str, dict[str, dict[str, float]]] = {}
    for name in runs.RUNS:
        results = runs.results(name)
        model = results.configuration["model"]
        for slug in sorted(results.names):
            if curve := results.curve(slug):
                cells = {f"{keep:g}": score for keep, score in curve.items()}
                made.setdefault(slug, {})[model] = cells
    return made


def _page(slug: str) -> str:
    described, doc = describe(slug), method_doc(method_class(slug))
    lines = [f"# {described['name']}", "", doc.summary, ""]
    if doc.intro:
        lines += [doc.intro, ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in _facts(slug))]
    if (ROOT / f"docs/methods/{slug}.png").exists():
        lines += ["", f"![{described['name']}: the tokens that are kept of an image]({slug}.png)"]
    for label, title in SECTIONS.items():
        if label in doc.sections:
            lines += ["", f"## {title}", "", _sentence(doc.sections[label])]
    if doc.example:
        head = ["import foveate", "", *([EXAMPLE_INPUTS] if "prompt" in doc.example else [])]
        lines += ["", "## Example", "", "```python", *head, doc.example, "```"]
    lines += [
        "",
        f"In commands: `--method {slug}`. By name: `foveate.create({slug!r}, ...)`.",
        "",
        "## Parameters",
        "",
        "| parameter | default | meaning |",
        "|---|---|---|",
    ]
    for row in described["parameters"]:
        lines.append(f"| `{row['name']}` | `{row['default']!r}` | {_cell(row['doc'])} |")
    return "\n".join(lines) + "\n"


def _facts(slug: str) -> Iterator[tuple[str, str]]:
    """The rows of the table at the top of a page."""
    described, doc = describe(slug), method_doc(method_class(slug))
    yield "class", f"`foveate.{described['class']}`"
    yield "where", where(described["stages"])
    signals = ", ".join(f"`{need}`" for need in described["needs"])
    needs = doc.sections.get("Needs", "Nothing besides the tokens.")
    yield "needs", _cell(needs) + (f" In code: {signals}." if signals else "")
    if "Cost" in doc.sections:
        yield "cost", _cell(doc.sections["Cost"])
    yield "keep means", described["keep_means"]
    yield "prompt-agnostic", described["selection"]
    yield "learned modules", "yes" if described["trained"] else "no"
    yield "model families", described["families"]
    for model, row in _measured().get(slug, {}).items():
        page = {"nano": "../bench.md", "image": "../image-bench.md"}[model]
        cells = ", ".join(f"{number(r)} at {100 * float(keep):g} %" for keep, r in row.items())
        yield f"normalised accuracy on [{model}]({page})", cells


def _sentence(text: str) -> str:
    """Text with a capital at its start, unless that is a symbol of a formula."""
    word = text.split(maxsplit=1)[0]
    symbol = len(word) == 1 and word != "a" or "_" in word
    return text if symbol else text[0].upper() + text[1:]


def _cell(text: str) -> str:
    """Text for one cell of a table."""
    return _sentence(" ".join(text.split())).replace("|", "\\|")


def main() -> int:
    """Write the files, or say which ones are out of date."""
    check = "--check" in sys.argv[1:]
    stale = []
    for path, text in pages().items():
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path.relative_to(ROOT))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for path in stale:
        print(f"{'out of date' if check else 'written'}: {path}")
    return int(check and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())
