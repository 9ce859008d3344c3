"""Methods that are significantly better than random and downsample, by task type.

Significantly: the paired 95 % bootstrap interval of the difference does not contain 0.
"""

from __future__ import annotations

from foveate.benchmarks.metrics import Interval
from foveate.benchmarks.results import Results

BASELINES = ("random", "downsample")
ALL_TASKS = "all tasks"
TASK_TYPES = {
    ALL_TASKS: (),
    "small objects": ("I6", "I8"),
    "counting": ("I4",),
    "text": ("I9", "I10", "I11", "I12"),
    "positions": ("I2", "I3"),
    "low contrast": ("I7",),
}
"""Tasks of each type; no tasks stands for all scored tasks."""


def task_types(results: Results) -> dict[str, list[str]]:
    """Task types with at least one scored task, and the scored tasks of each."""
    scored = results.kept_tasks()
    found = {
        kind: [task for task in scored if not tasks or task in tasks]
        for kind, tasks in TASK_TYPES.items()
    }
    return {kind: tasks for kind, tasks in found.items() if tasks}


def task_type_findings(results: Results) -> list[str]:
    """One sentence per task type: how many methods are better than the baselines, which worse."""
    bases = [base for base in BASELINES if results.curve(base)]
    made = []
    types = {kind: tasks for kind, tasks in task_types(results).items() if kind != ALL_TASKS}
    for kind, tasks in types.items() if bases else ():
        leads = {
            s.name: [results.lead(s.name, base, tasks) for base in bases]
            for s in results.summaries
            if s.role == "method"
        }
        known = {n: found for n, found in leads.items() if all(f is not None for f in found)}
        if not known:
            continue
        better = [n for n, found in known.items() if all(sign(f) > 0 for f in found)]
        worse = [n for n, found in known.items() if sign(found[0]) < 0]
        words = f"{type_title(kind.capitalize(), tasks)}: {len(better)} of {len(known)} methods "
        words += f"are significantly better than {' and '.join(bases)}"
        if better:
            best = max(better, key=lambda name: known[name][0][0])
            words += f", best: {best} ({known[best][0][0]:+.2f} over {bases[0]})"
        if worse:
            words += f"; significantly worse than {bases[0]}: {', '.join(worse)}"
        made.append(words + ".")
    return made


def type_title(kind: str, tasks: list[str]) -> str:
    """A task type with the ids of its tasks."""
    return kind if kind == ALL_TASKS else f"{kind} ({', '.join(tasks)})"


def sign(found: tuple[float, Interval]) -> int:
    """1 or -1 for a significantly positive or negative difference, else 0."""
    bounds = found[1]
    return 0 if bounds is None or bounds[0] <= 0 <= bounds[1] else 1 if bounds[0] > 0 else -1
