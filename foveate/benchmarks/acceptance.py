"""What the bench must show before its tables mean anything: six checks with their numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from foveate.benchmarks.evidence import COUNTING
from foveate.benchmarks.metrics import SPAN
from foveate.benchmarks.results import Results
from foveate.benchmarks.statistics import interval, kendall

CONSTANT = 0.03
LIFT, LIFT_KEEP, LIFT_TASKS = 0.15, 0.125, 2 / 3
POSITION_COST, POSITION_KEEPS = 0.05, (0.5, 0.25, 0.125)
AGREEMENT = 0.7
DIVERSITY, SALIENCY, QUERY = "divprune", "fastervlm", "fastv"


@dataclass(frozen=True)
class Verdict:
    """One check. passed is None where the results don't have what it needs."""

    number: int
    title: str
    passed: bool | None
    words: str
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """How it went."""
        return {True: "passed", False: "failed", None: "not available"}[self.passed]


def check(results: Results, other: Results | None = None) -> list[Verdict]:
    """All six verdicts. other: results of a second training of the model, for the fifth."""
    return [
        scale(results),
        headroom(results),
        crossings(results),
        positions(results),
        agreement(results, other),
        identity(results),
    ]


def scale(results: Results) -> Verdict:
    """Every task must need its picture: full - blind of 30 points, pictures blinded for good."""
    title = "full is at least 30 points above blind; a mean-colour picture tells nothing"
    numbers: dict[str, Any] = {}
    for task in results.tasks:
        blind, full = results.span(task)
        constant, mean = results.row(task, "constant"), results.row(task, "blind")
        leak = mean["accuracy"] - constant["accuracy"] if mean and constant else None
        numbers[task] = {
            "full": full,
            "blind": blind,
            "span": full - blind,
            "leak": leak,
        }
    if not numbers:
        return Verdict(1, title, None, "No task has its full and blind rows yet.")
    short = [t for t, x in numbers.items() if x["span"] < SPAN]
    leaky = [t for t, x in numbers.items() if x["leak"] is not None and x["leak"] > CONSTANT]
    words = ", ".join(f"{t} {_points(x['span'])}" for t, x in numbers.items())
    if short:
        words += f"; too little: {', '.join(short)}"
    if leaky:
        words += f"; answered without the picture better than by a constant: {', '.join(leaky)}"
    return Verdict(1, title, not short and not leaky, words, numbers)


def headroom(results: Results) -> Verdict:
    """Choosing tokens must be worth something: oracle - random of 15 points at 12.5 %."""
    title = "oracle is at least 15 points above random at 12.5 % on two thirds of the tasks"
    numbers = {}
    for task in results.tasks:
        cell = results.cells.get((task, "oracle", LIFT_KEEP))
        if cell is not None and cell.gain is not None and task not in COUNTING:
            numbers[task] = cell.gain
    if not numbers:
        return Verdict(2, title, None, "Oracle or random did not run at 12.5 %.")
    good = [task for task, gain in numbers.items() if gain >= LIFT]
    words = ", ".join(f"{task} {_points(gain)}" for task, gain in numbers.items())
    left_out = [task for task in results.tasks if task in COUNTING]
    if left_out:
        words += f"; left out, for counting has no oracle: {', '.join(left_out)}"
    return Verdict(2, title, len(good) >= LIFT_TASKS * len(numbers), words, numbers)


def crossings(results: Results) -> Verdict:
    """No single idea may win everywhere: pairs of tasks must pull in opposite directions."""
    title = (
        "diversity beats saliency on I8 and loses on I9; a query helps on I7, not at the end of I17"
    )
    wanted = {
        "I8": (DIVERSITY, SALIENCY),
        "I9": (SALIENCY, DIVERSITY),
        "I7": (QUERY, SALIENCY),
    }
    numbers, words, missing = {}, [], ["I17"]
    for task, (better, worse) in wanted.items():
        one, two = results.curve(better, [task]), results.curve(worse, [task])
        shared = sorted(set(one) & set(two))
        if task not in results.kept_tasks() or not shared:
            missing.append(task)
            continue
        lead = float(np.mean([one[k] - two[k] for k in shared]))
        words.append(f"{task}: {better} - {worse} = {lead:+.2f} of R")
        if task in results.insensitive_tasks(better):
            words[-1] += f", which says nothing, for {better} can't fail there"
            missing.append(task)
            continue
        numbers[task] = lead
    words.append(f"not available: {', '.join(sorted(missing, key=lambda t: int(t[1:])))}")
    wrong = [task for task, lead in numbers.items() if lead <= 0]
    return Verdict(3, title, False if wrong else None, "; ".join(words), numbers)


def positions(results: Results) -> Verdict:
    """Renumbering the tokens that are left must cost where places are asked, and nowhere else."""
    title = "packed positions cost at least 5 points on I2, and nothing on I1"
    numbers: dict[str, Any] = {}
    for task in ("I1", "I2"):
        pairs = [
            (original, packed)
            for keep in POSITION_KEEPS
            if task in results.tasks
            and (original := results.row(task, "random_original", keep, 0))
            and (packed := results.row(task, "random", keep, 0))
        ]
        if pairs:
            draws = results._draws[task]
            spread = np.mean([draws[a["right"]] - draws[b["right"]] for a, b in pairs], axis=0)
            cost = float(np.mean([a["accuracy"] - b["accuracy"] for a, b in pairs]))
            numbers[task] = {"cost": cost, "interval": interval(spread)}
    if len(numbers) < 2:
        return Verdict(4, title, None, "I1 and I2 with both kinds of positions are needed.")
    low, high = numbers["I1"]["interval"]
    words = "; ".join(
        f"{task} {_points(x['cost'])} ({_points(x['interval'][0])} to {_points(x['interval'][1])})"
        for task, x in numbers.items()
    )
    passed = numbers["I2"]["cost"] >= POSITION_COST and low <= 0
    return Verdict(4, title, passed, f"random tokens, keep 50 to 12.5 %: {words}", numbers)


def agreement(results: Results, other: Results | None) -> Verdict:
    """Two trainings of a model must rank methods alike, or the ranking is noise."""
    title = "Kendall's tau between the rankings of two trainings is at least 0.7"
    if other is None:
        return Verdict(5, title, None, "Give the results of a second training.")
    one = {
        s.name: s.normalised_accuracy
        for s in results.summaries
        if s.normalised_accuracy is not None
    }
    two = {
        s.name: s.normalised_accuracy for s in other.summaries if s.normalised_accuracy is not None
    }
    names = sorted(set(one) & set(two))
    tau = kendall([one[n] for n in names], [two[n] for n in names]) if len(names) > 1 else np.nan
    if not np.isfinite(tau):
        return Verdict(5, title, None, "The two runs share too few methods to rank.")
    words = f"tau = {tau:.2f} over {len(names)} methods and controls"
    same = results.configuration["weights"] == other.configuration["weights"]
    words += "; both runs are of the same weights, which proves nothing" if same else ""
    return Verdict(5, title, None if same else tau >= AGREEMENT, words, {"tau": tau})


def identity(results: Results) -> Verdict:
    """At keep = 100 % every method gives the scores of the full model, bit for bit."""
    title = "at keep = 100 % every method gives the full model's scores to the last digit"
    ran, wrong = 0, []
    for row in results.rows:
        if row["keep"] != 1 or "right" not in row or row["name"] == "full":
            continue
        full = results.row(row["task"], "full", 1.0)
        if full is None:
            continue
        ran += 1
        if row["digests"] != full["digests"][: len(row["digests"])]:
            same = row["right"] == full["right"][: len(row["right"])]
            answers = "same answers" if same else "other answers"
            wrong.append(f"{row['name']} on {row['task']} ({answers})")
    if not ran:
        return Verdict(6, title, None, "No method ran at 100 %.")
    words = f"{ran - len(wrong)} of {ran} settings give bit-equal scores"
    words += f"; different: {', '.join(wrong)}" if wrong else ""
    return Verdict(6, title, not wrong, words, {"settings": ran, "different": wrong})


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
