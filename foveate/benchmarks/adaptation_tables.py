"""The tables of the test-time adaptation benchmark, as Markdown."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foveate.benchmarks.errors import BenchError
from foveate.benchmarks.statistics import interval, resampled

MARK = "<!-- adaptation -->"
PLAIN, NONE = "CLIP", "none"


def tables(rows: list[dict]) -> str:
    """Per kind of class, one table over all shifts and one by shift."""
    parts = []
    for kind in dict.fromkeys(r["kind"] for r in rows):
        own = [r for r in rows if r["kind"] == kind]
        parts += [f"### {kind.capitalize()}", _summary(own), _by_shift(own)]
    first = rows[0]
    parts.append(
        f"{first['n']} images per stream, severity {first['severity']}, seed {first['seed']}; "
        f"{first['model']}, torch {first['torch']}, transformers {first['transformers']}, "
        f"{first['device']}, {first['threads']} thread(s). In brackets: 95 % CI of 2,000 bootstrap "
        "draws of the images, paired for differences."
    )
    return "\n\n".join(parts) + "\n"


def _answers(rows: list[dict], method: str, shifts: list[str]) -> np.ndarray:
    """Answers (N,) of a method, mean over the shifts."""
    by = {r["shift"]: r["right"] for r in rows if r["method"] == method}
    return np.array([by[s] for s in shifts]).mean(0)


def _shifts(rows: list[dict]) -> list[str]:
    return [s for s in dict.fromkeys(r["shift"] for r in rows) if s != NONE]


def _summary(rows: list[dict]) -> str:
    shifts = _shifts(rows) or [NONE]
    lines = [
        "| method | no shift | mean over shifts | difference to CLIP | tokens after the last layer "
        "| vision encoder FLOPs |",
        "|---|---|---|---|---|---|",
    ]
    plain = _answers(rows, PLAIN, shifts)
    for method in dict.fromkeys(r["method"] for r in rows):
        own = [r for r in rows if r["method"] == method]
        bare = [f"{100 * r['accuracy']:.1f}" for r in own if r["shift"] == NONE] or ["–"]
        answers = _answers(rows, method, shifts)
        draws = resampled(np.stack([answers, answers - plain]))
        low, high = (100 * v for v in interval(draws[:, 0]))
        gap = "–"
        if method != PLAIN:
            least, most = (100 * v for v in interval(draws[:, 1]))
            gap = f"{100 * (answers - plain).mean():+.1f} [{least:+.1f}, {most:+.1f}]"
        tokens = np.mean([r["tokens"][-1] for r in own])
        share = sum(r["flops"] for r in own) / sum(r["flops_full"] for r in own)
        lines.append(
            f"| {method} | {bare[0]} | {100 * answers.mean():.1f} [{low:.1f}, {high:.1f}] | {gap} "
            f"| {tokens:.0f} | {100 * share:.0f} % |"
        )
    return "\n".join(lines)


def _by_shift(rows: list[dict]) -> str:
    shifts = list(dict.fromkeys(r["shift"] for r in rows))
    lines = ["| method | " + " | ".join(shifts) + " |", "|---|" + "---|" * len(shifts)]
    for method in dict.fromkeys(r["method"] for r in rows):
        by = {r["shift"]: r["accuracy"] for r in rows if r["method"] == method}
        lines.append(f"| {method} | " + " | ".join(f"{100 * by[s]:.1f}" for s in shifts) + " |")
    return "\n".join(lines)


def paste(page: Path, text: str) -> None:
    """Write the tables between the two marks of a page."""
    try:
        before, _, after = page.read_text(encoding="utf-8").split(MARK)
    except (OSError, ValueError):
        raise BenchError(f"{str(page)!r} needs two {MARK} marks around the tables.") from None
    page.write_text(f"{before}{MARK}\n\n{text}\n{MARK}{after}", encoding="utf-8")
