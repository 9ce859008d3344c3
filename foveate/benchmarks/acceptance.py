"""Six checks of the benchmark itself: what must hold before its tables can be interpreted."""

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
    """The outcome of one check.

    Attributes:
        number: 1 to 6.
        title: what must hold.
        passed: None if the results do not contain what the check needs.
        details: the measured numbers as text.
        numbers: the same numbers as values.
    """

    number: int
    title: str
    passed: bool | None
    details: str
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """ "passed", "failed" or "not available"."""
        return {True: "passed", False: "failed", None: "not available"}[self.passed]


def check(results: Results, other: Results | None = None) -> list[Verdict]:
    """All six checks.

    Args:
        results: the run to check.
        other: results of a second training of the model, for check 5. Default None: not available.
    """
    return [
        scale(results),
        headroom(results),
        crossings(results),
        positions(results),
        agreement(results, other),
        identity(results),
    ]


def scale(results: Results) -> Verdict:
    """Every task must need its image: full model 30 points above the no-image baseline."""
    title = (
        "The tasks need the image: the full model is at least 30 points above the no-image "
        "baseline, and constant-colour images are not better than a constant answer"
    )
    numbers: dict[str, Any] = {}
    for task in results.tasks:
        no_image, full = results.span(task)
        constant, plain = results.row(task, "constant"), results.row(task, "blind")
        leak = plain["accuracy"] - constant["accuracy"] if plain and constant else None
        numbers[task] = {
            "full": full,
            "no_image": no_image,
            "span": full - no_image,
            "leak": leak,
        }
    if not numbers:
        return Verdict(1, title, None, "No task has a full model and a no-image baseline yet.")
    short = [t for t, x in numbers.items() if x["span"] < SPAN]
    leaky = [t for t, x in numbers.items() if x["leak"] is not None and x["leak"] > CONSTANT]
    words = ", ".join(f"{t} {_points(x['span'])}" for t, x in numbers.items()) + " points"
    if short:
        words += f"; too small: {', '.join(short)}"
    if leaky:
        words += f"; answered from constant-colour images: {', '.join(leaky)}"
    return Verdict(1, title, not short and not leaky, words, numbers)


def headroom(results: Results) -> Verdict:
    """Token selection must matter: oracle 15 points above random token selection at 12.5 %."""
    title = (
        "Token selection matters: the oracle is at least 15 points above random token selection at "
        "12.5 % on two thirds of the tasks"
    )
    numbers = {}
    for task in results.tasks:
        cell = results.cells.get((task, "oracle", LIFT_KEEP))
        if cell is not None and cell.gain is not None and task not in COUNTING:
            numbers[task] = cell.gain
    if not numbers:
        return Verdict(
            2, title, None, "The oracle or random token selection was not measured at 12.5 %."
        )
    good = [task for task, gain in numbers.items() if gain >= LIFT]
    words = ", ".join(f"{task} {_points(gain)}" for task, gain in numbers.items()) + " points"
    left_out = [task for task in results.tasks if task in COUNTING]
    if left_out:
        words += f"; not counted, because a counting task has no oracle: {', '.join(left_out)}"
    return Verdict(2, title, len(good) >= LIFT_TASKS * len(numbers), words, numbers)


def crossings(results: Results) -> Verdict:
    """No single criterion may win everywhere: pairs of tasks must favour different methods."""
    title = (
        "The tasks separate selection criteria: diversity is better than attention on I8 and worse "
        "on I9, text guidance is better on I7 and not in the last turns of I17"
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
        words.append(f"{task}: {better} {lead:+.2f} over {worse} (normalised accuracy)")
        if task in results.insensitive_tasks(better):
            words[-1] += f", not conclusive: the task is insensitive to where {better} prunes"
            missing.append(task)
            continue
        numbers[task] = lead
    words.append(f"not available: {', '.join(sorted(missing, key=lambda t: int(t[1:])))}")
    wrong = [task for task, lead in numbers.items() if lead <= 0]
    return Verdict(3, title, False if wrong else None, "; ".join(words), numbers)


def positions(results: Results) -> Verdict:
    """Packed position ids must cost accuracy if the question asks for a position, and only then."""
    title = "Packed position ids cost at least 5 points on I2 (positions) and nothing on I1"
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
        return Verdict(
            4,
            title,
            None,
            "Needs random token selection with packed and with original position ids on I1 and I2.",
        )
    low, high = numbers["I1"]["interval"]
    words = "; ".join(
        f"{task} {_points(-x['cost'])} points (95 % CI {_points(-x['interval'][1])} to "
        f"{_points(-x['interval'][0])})"
        for task, x in numbers.items()
    )
    passed = numbers["I2"]["cost"] >= POSITION_COST and low <= 0
    return Verdict(
        4, title, passed, f"Accuracy of random token selection at 50 to 12.5 %: {words}", numbers
    )


def agreement(results: Results, other: Results | None) -> Verdict:
    """Two trainings of a model must rank the methods alike, or the ranking is noise."""
    title = "Two trainings rank the methods alike: Kendall's tau is at least 0.7"
    if other is None:
        return Verdict(5, title, None, "Needs the results of a second training (--against).")
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
        return Verdict(5, title, None, "The two runs have too few methods in common.")
    words = f"tau = {tau:.2f} over {len(names)} methods and controls"
    same = results.configuration["weights"] == other.configuration["weights"]
    words += "; not conclusive: both runs use the same weights" if same else ""
    return Verdict(5, title, None if same else tau >= AGREEMENT, words, {"tau": tau})


def identity(results: Results) -> Verdict:
    """At keep = 100 % every method gives the scores of the full model, bit for bit."""
    title = "At keep = 100 % every method gives the scores of the full model bit for bit"
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
            answers = "same answers" if same else "different answers"
            wrong.append(f"{row['name']} on {row['task']} ({answers})")
    if not ran:
        return Verdict(6, title, None, "No method was measured at 100 %.")
    words = f"{ran - len(wrong)} of {ran} settings are bit-identical"
    words += f"; different: {', '.join(wrong)}" if wrong else ""
    return Verdict(6, title, not wrong, words, {"settings": ran, "different": wrong})


def _points(share: float) -> str:
    return f"{100 * share + 0.0:+.1f}"
