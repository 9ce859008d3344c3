"""The table of docs/choose-a-method.md: methods compared, from code and stored results."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import foveate
from foveate.benchmarks.results import Results
from foveate.catalogue import describe, measured

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/choose-a-method.md"
BEGIN, END = "<!-- choose: make docs -->", "<!-- end of choose -->"
KEEPS = ("0.25", "0.1")
WHERE = {
    "frames": "before the vision encoder",
    "encoders": "inside the vision encoder",
    "tokens": "before the LLM",
    "layers": "inside the LLM",
    "caches": "KV cache",
}


def page() -> str:
    """The page with its table written anew."""
    head, rest = PAGE.read_text().split(BEGIN)
    return f"{head}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def table() -> str:
    """Methods with the highest normalised accuracy at 25 % first; methods without a figure last."""
    rows = []
    for info in foveate.catalog():
        if info.status == "available":
            known = describe(info.slug)
            found = measured().get(info.slug, {}).get("image", {})
            rows.append((-found.get(KEEPS[0], -1.0), info.slug, known, found))
    lines = [
        "| method | where | sees the question | models | learned modules | accuracy at 25 % "
        "| at 10 % | prefill FLOPs at 25 % |",
        "|---|---|---|---|---|--:|--:|--:|",
    ]
    for _, slug, known, found in sorted(rows, key=lambda row: row[:2]):
        cost = _flops(slug, float(KEEPS[0]))
        cells = (
            f"[`{slug}`](methods/{slug}.md)",
            " and ".join(WHERE[s] for s in known["stages"]),
            "no" if known["prompt_agnostic"] else "yes",
            "all" if known["families"] == "all" else "some",
            "yes" if known["trained"] else "no",
            *(f"{found[keep]:.2f}" if keep in found else "–" for keep in KEEPS),
            "–" if cost is None else f"{cost:.0%}".replace("%", " %"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@cache
def _results() -> Results:
    return Results.load(ROOT / "docs/image-bench")


def _flops(slug: str, keep: float) -> float | None:
    """Prefill FLOPs with token selection, as a share of the full model's; None if not measured."""
    results = _results()
    rows = [row for task in results.kept_tasks() for row in results.repeats(task, slug, keep)]
    if not rows:
        return None
    return sum((r["flops"] + r["method_flops"]) / r["flops_full"] for r in rows) / len(rows)
