"""What is seen in a run, in plain words: every sentence follows from the numbers by a rule."""

from __future__ import annotations

from itertools import combinations

from foveate import mini
from foveate.benchmarks.acceptance import positions
from foveate.benchmarks.baseline_comparison import beaten
from foveate.benchmarks.metrics import INSENSITIVE, SPAN
from foveate.benchmarks.results import Results
from foveate.benchmarks.tables import number, title_of
from foveate.method import registered

AT = 0.125


def seen(results: Results) -> list[str]:
    """Sentences about the results; each appears only where its rule holds."""
    said = [
        *_left_out(results),
        *_unable(results),
        *_best(results),
        *_chance(results),
        *beaten(results),
        *_oracle(results),
        *_distracted(results),
        *_tasks(results),
        *_positions(results),
        *_leak(results),
        *_dearer(results),
        *_inside(results),
        *_coinciding(results),
        *_out_of_reach(results),
    ]
    return said or ["Too little was measured to say anything."]


def _left_out(results: Results) -> list[str]:
    short = [task for task in results.tasks if task not in results.kept_tasks()]
    if not short:
        return []
    told = (
        f"{title_of(task)} ({100 * (results.span(task)[1] - results.span(task)[0]):+.1f})"
        for task in short
    )
    return [
        f"Left out of all means of R, for full is less than {100 * SPAN:g} points above blind: "
        f"{', '.join(told)}."
    ]


def _unable(results: Results) -> list[str]:
    """What an embedded model learnt too little of, by its card."""
    card = mini.model_card(str(results.configuration["model"]))
    tested, kept = card.get("test", {}), card.get("kept", card.get("test", {}))
    short = {task: row for task, row in tested.items() if task not in kept}
    if not short:
        return []
    told = (
        f"{title_of(task)} ({100 * row['full']:.1f} % with the picture, "
        f"{100 * max(row['blind'], row['constant']):.1f} % without)"
        for task, row in short.items()
    )
    return [
        "Not here, for the model itself knows too little of it: "
        f"{', '.join(told)}. What methods cost there must be seen on another model."
    ]


def _complete(results: Results, role: str | None = None) -> list:
    """Summaries of what ran at every keep, best first."""
    every = len(results.keeps)
    return [
        s
        for s in results.summaries
        if s.normalised_accuracy is not None and s.keeps == every and role in (None, s.role)
    ]


def _best(results: Results) -> list[str]:
    inside = results.first_pruning_layers()
    ranked = [s for s in _complete(results, "method") if s.name not in inside]
    if not ranked:
        return []
    best = ranked[0]
    words = f"Of the methods that act before the language model and run at every keep, {best.name} "
    words += f"retains most: R = {number(best.normalised_accuracy)} on average over tasks and keeps"
    if best.gain is not None:
        words += f", {best.gain:+.2f} against random"
    made = [words + "."]
    simple = [s for s in _complete(results, "control") if s.name in ("uniform", "grid_pool")]
    better = [s.name for s in simple if s.normalised_accuracy >= best.normalised_accuracy]
    if better:
        made.append(f"No such method beats {' and '.join(better)}, which choose nothing.")
    return made


def _chance(results: Results) -> list[str]:
    above, equal, below = [], [], []
    for s in results.summaries:
        if s.role != "method" or s.gain_interval is None:
            continue
        low, high = s.gain_interval
        (above if low > 0 else below if high < 0 else equal).append(s.name)
    made = []
    if above:
        made.append(f"Better than random tokens (95 %, paired): {', '.join(above)}.")
    if equal:
        made.append(f"Not told apart from random tokens: {', '.join(equal)}.")
    if below:
        made.append(f"Worse than random tokens: {', '.join(below)}.")
    return made


def _oracle(results: Results) -> list[str]:
    oracle = results.curve("oracle").get(AT)
    inside = results.first_pruning_layers()
    others = {
        s.name: skill
        for s in results.summaries
        if s.role == "method"
        and s.name not in inside
        and (skill := results.curve(s.name).get(AT)) is not None
    }
    if oracle is None or not others:
        return []
    best = max(others, key=others.__getitem__)
    gap = oracle - others[best]
    words = (
        f"At {100 * AT:g} % a choice that knows the evidence has R = {number(oracle)}, the best "
    )
    words += f"method before the language model, {best}, {number(others[best])}: "
    return [words + (f"{number(gap)} is left to gain." if gap > 0 else "nothing is left to gain.")]


def _distracted(results: Results) -> list[str]:
    better = [
        title_of(task)
        for task in results.kept_tasks()
        if (cell := results.cells.get((task, "oracle", AT)))
        and cell.normalised_accuracy_interval
        and cell.normalised_accuracy_interval[0] > 1
    ]
    if not better:
        return []
    return [
        f"With the evidence and little else the model answers better than with all tokens on "
        f"{', '.join(better)}: the rest of the picture distracts it there, and R above 1 is real."
    ]


def _positions(results: Results) -> list[str]:
    made = []
    for task, found in positions(results).numbers.items():
        low, high = found["interval"]
        if low > 0 or high < 0:
            verb = "costs" if found["cost"] > 0 else "gains"
            made.append(
                f"Renumbering the tokens that are left, instead of keeping their positions, {verb} "
                f"{100 * abs(found['cost']):.1f} points on {title_of(task)} (random tokens, mean "
                "over 50, 25 and 12.5 %)."
            )
    return made


def _tasks(results: Results) -> list[str]:
    at = {
        task: cell.normalised_accuracy
        for task in results.kept_tasks()
        if (cell := results.cells.get((task, "random", AT)))
        and cell.normalised_accuracy is not None
    }
    if len(at) < 2:
        return []
    worst, best = min(at, key=at.__getitem__), max(at, key=at.__getitem__)
    if at[worst] == at[best]:
        return []
    return [
        f"With {100 * AT:g} % of the tokens drawn at random, {title_of(worst)} suffers most "
        f"(R = {number(at[worst])}) and {title_of(best)} least ({number(at[best])})."
    ]


def _leak(results: Results) -> list[str]:
    made = []
    for task in results.kept_tasks():
        row = results.row(task, "anti_oracle")
        skill = results.normalised_accuracy(task, [row])[0] if row else None
        if skill is not None and skill >= 0.25:
            made.append(f"{title_of(task)} ({number(skill)})")
    if not made:
        return []
    return [
        "Without the evidence tokens a quarter of R or more is left, because the encoder spreads "
        f"evidence to other tokens or the answer is an absence, on {', '.join(made)}."
    ]


def _dearer(results: Results) -> list[str]:
    made = []
    for s in results.summaries:
        found = [c for t in results.tasks if (c := results.cells.get((t, s.name, AT)))]
        if s.role != "method" or not found:
            continue
        tokens = sum(c.tokens_mean for c in found) / len(found)
        asked = AT * results.configuration["tokens"]
        if tokens >= 1.25 * asked:
            made.append(
                f"At {100 * AT:g} % {s.name} runs on {tokens:.1f} tokens on average over the "
                f"layers, where others run on {asked:g}: compare it at equal FLOPs."
            )
    return made


def _inside(results: Results) -> list[str]:
    made = []
    for name, k in results.first_pruning_layers().items():
        tasks = results.insensitive_tasks(name)
        if tasks:
            made.append(
                f"{name} drops tokens from layer {k} on; with no visual token at all from there, "
                f"R is {INSENSITIVE} or more on {', '.join(tasks)}: there these results say "
                "nothing about which tokens it keeps, only what it costs."
            )
    return made


def _coinciding(results: Results) -> list[str]:
    """Methods whose answers are the same in all settings that both ran in."""
    answers = {
        s.name: {
            (task, keep): row["right"]
            for task in results.tasks
            for keep in results.keeps
            if (row := results.row(task, s.name, keep))
        }
        for s in results.summaries
        if s.role == "method"
    }
    known = registered()
    made = []
    for one, two in combinations(answers, 2):
        shared = answers[one].keys() & answers[two].keys()
        if not shared or any(answers[one][at] != answers[two][at] for at in shared):
            continue
        reasons = [
            known[a].coincides[b]
            for a, b in ((one, two), (two, one))
            if a in known and b in known[a].coincides
        ]
        told = f"{one} and {two} give the same answers in every setting here"
        made.append(f"{told}: {reasons[0]}." if reasons else f"{told}.")
    return made


def _out_of_reach(results: Results) -> list[str]:
    by_name: dict[str, list[float]] = {}
    for name, keep in results.refusals():
        if keep is not None:
            by_name.setdefault(name, []).append(keep)
    return [
        f"{name} can't run at {', '.join(f'{100 * k:.4g} %' for k in sorted(keeps, reverse=True))} "
        "on this model."
        for name, keeps in by_name.items()
    ]
