"""Which methods beat tokens drawn at random and smaller pictures, and on what kind of question."""

from __future__ import annotations

from foveate.benchmarks.metrics import Interval
from foveate.benchmarks.results import Results

BASES = ("random", "downsample")
KINDS = {
    "all tasks": (),
    "small objects": ("I6", "I8"),
    "counting": ("I4",),
    "text": ("I9", "I10", "I11", "I12"),
    "places": ("I2", "I3"),
    "what hardly shows": ("I7",),
}
"""Kinds of questions by their tasks; none stands for all kept tasks."""


def kinds(results: Results) -> dict[str, list[str]]:
    """The kinds that the kept tasks allow, with the tasks of each."""
    kept = results.kept_tasks()
    found = {
        kind: [task for task in kept if not tasks or task in tasks] for kind, tasks in KINDS.items()
    }
    return {kind: tasks for kind, tasks in found.items() if tasks}


def beaten(results: Results) -> list[str]:
    """One sentence per kind: who beats the bases there for certain, and who loses to random."""
    bases = [base for base in BASES if results.curve(base)]
    made = []
    for kind, tasks in kinds(results).items() if bases else ():
        leads = {
            s.name: [results.lead(s.name, base, tasks) for base in bases]
            for s in results.summaries
            if s.role == "method"
        }
        known = {n: found for n, found in leads.items() if all(f is not None for f in found)}
        better = [n for n, found in known.items() if all(sign(f) > 0 for f in found)]
        worse = [n for n, found in known.items() if sign(found[0]) < 0]
        words = f"On {named(kind, tasks)} {', '.join(better) or 'no method'} "
        words += f"beat{'s' if len(better) < 2 else ''} {' and '.join(bases)} for certain (95 %)"
        if worse:
            words += f"; {', '.join(worse)} lose{'s' if len(worse) < 2 else ''} to {bases[0]}"
        if known:
            made.append(words + ".")
    return made


def named(kind: str, tasks: list[str]) -> str:
    """A kind of question with its tasks."""
    return kind if kind == "all tasks" else f"{kind} ({', '.join(tasks)})"


def sign(found: tuple[float, Interval]) -> int:
    """1 or -1 where the interval leaves 0 out, else 0."""
    bounds = found[1]
    return 0 if bounds is None or bounds[0] <= 0 <= bounds[1] else 1 if bounds[0] > 0 else -1
