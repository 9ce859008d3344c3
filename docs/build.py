"""`python -m docs.build`: write what can be derived from the code, with `--check` only compare.

The table of methods in README.md, the index docs/methods.md, one page per available method, and the
type stub of the package.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path

import foveate
from docs.stubs import stub
from foveate.benchmarks.results import Results
from foveate.benchmarks.statistics import normalised_accuracy
from foveate.catalogue import describe

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- methods: make docs -->", "<!-- end of methods -->"


def pages() -> dict[Path, str]:
    """Every derived file with its text."""
    made = {ROOT / "README.md": _readme(), ROOT / "docs/methods.md": _index()}
    made[ROOT / "foveate/__init__.pyi"] = stub()
    made[ROOT / "foveate/measured.json"] = json.dumps(_measured(), indent=1) + "\n"
    for info in foveate.catalog():
        if info.status == "available":
            made[ROOT / f"docs/methods/{info.slug}.md"] = _page(info.slug)
    return made


def _readme() -> str:
    text = (ROOT / "README.md").read_text()
    lines = ["| method | acts at | year | what it does |", "|---|---|---|---|"]
    for info in foveate.catalog():
        if info.status == "available":
            does = describe(info.slug)["about"].split("\n")[0].split(": ", 1)[-1]
            page = f"docs/methods/{info.slug}.md"
            name = info.name if info.year else info.slug
            lines.append(
                f"| [{name}]({page}) | {', '.join(info.stages)} | {info.year or 'baseline'} "
                f"| {does} |"
            )
    head, rest = text.split(BEGIN)
    return head + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.split(END)[1]


def _index() -> str:
    infos = foveate.catalog()
    ready = sum(i.status == "available" for i in infos)
    lines = [
        "# All systems",
        "",
        f"{len(infos)} systems and baselines, {ready} of them available; the others are planned. "
        "Written by `make docs`; `foveate methods` prints the same.",
        "",
        "| slug | system | year | acts at | paper | status |",
        "|---|---|---|---|---|---|",
    ]
    for i in infos:
        slug = f"[`{i.slug}`](methods/{i.slug}.md)" if i.status == "available" else f"`{i.slug}`"
        lines.append(
            f"| {slug} | {i.title} | {i.year or ''} | {', '.join(i.stages)} | {i.paper} "
            f"| {i.status} |"
        )
    return "\n".join(lines) + "\n"


@cache
def _measured() -> dict[str, dict[str, dict[str, float]]]:
    """Mean retained skill over the kept tasks, by slug, model and share, of the runs in docs."""
    made: dict[str, dict[str, dict[str, float]]] = {}
    for folder in ("bench", "image-bench"):
        results = Results.load(ROOT / "docs" / folder)
        model = results.configuration["model"]
        for name in sorted(results.names):
            for keep in results.keeps:
                rows = [results.repeats(task, name, keep) for task in results.kept_tasks()]
                if all(rows):
                    skills = [
                        normalised_accuracy(
                            sum(r["accuracy"] for r in own) / len(own), *results.span(task)
                        )
                        for task, own in zip(results.kept_tasks(), rows, strict=True)
                    ]
                    cells = made.setdefault(name, {}).setdefault(model, {})
                    cells[f"{keep:g}"] = round(float(sum(skills) / len(skills)), 3)
    return made


def _page(slug: str) -> str:
    told = describe(slug)
    title, *rest = told["about"].split("\n")
    about = "\n".join(rest).strip()
    prose, _, example = about.partition("\n\n    model, processor")
    lines = [f"# {title}", "", prose, ""]
    if example:
        code = re.sub(r"^    ", "", "    model, processor" + example, flags=re.M)
        lines += ["```python", "import foveate", "", code, "```", ""]
    lines += [
        f"Create it with `foveate.{told['class']}(...)`, `foveate.create({slug!r}, ...)` or "
        f"`foveate ask ... --method {slug}`.",
        "",
        "| parameter | default | meaning |",
        "|---|---|---|",
    ]
    for row in told["parameters"]:
        lines.append(f"| `{row['name']}` | `{row['default']!r}` | {row['doc']} |")
    lines += [
        "",
        f"- acts at: {', '.join(told['stages'])}",
        f"- needs: {', '.join(f'`{n}`' for n in told['needs']) or 'nothing beyond the features'}",
        f"- families: {told['families']}",
        *_skills(_measured().get(slug, {})),
        f"- the same tokens whatever is asked: {'yes' if told['prompt_agnostic'] else 'no'}",
        f"- trained parts: {'yes' if told['trained'] else 'no'}",
    ]
    return "\n".join(lines) + "\n"


def _skills(bench: dict[str, dict[str, float]]) -> list[str]:
    pages = {"nano": "../bench.md", "image": "../image-bench.md"}
    lines = []
    for model, row in bench.items():
        cells = ", ".join(f"{skill:.2f} at {100 * float(keep):g} %" for keep, skill in row.items())
        lines.append(f"- retained skill on [{model}]({pages[model]}): {cells}")
    return lines


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
