"""Key findings of a run: sentences that follow from the stored numbers by fixed rules."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations

from foveate import mini
from foveate.benchmarks.acceptance import check, positions
from foveate.benchmarks.baseline_comparison import sign, task_type_findings
from foveate.benchmarks.metrics import INSENSITIVE, SPAN, Summary
from foveate.benchmarks.results import Results
from foveate.benchmarks.settings import CONTROLS
from foveate.benchmarks.statistics import THRESHOLD
from foveate.benchmarks.tables import number, oracle_ratio, ratio, title_of
from foveate.method import registered
from foveate.trained import shipped

MOST_NAMES = 6
"""Lists of more methods are given as a number."""


def key_findings(results: Results) -> list[str]:
    """The findings, most important first; each appears only if its rule holds."""
    found = [
        *_best(results),
        *_accurate(results),
        *_against_random(results),
        *task_type_findings(results),
        *_headroom(results),
        *_above_full(results),
        *_hardest_task(results),
        *_positions(results),
        *_evidence_removed(results),
        *_unequal_cost(results),
        *_insensitive(results),
        *_identical(results),
        *_not_scored(results),
        *_not_learned(results),
        *_not_available(results),
        *absent(results),
    ]
    if found:
        found += _failed_checks(results)
    return found or ["Too few settings are measured for a finding."]


def _methods(results: Results) -> list[Summary]:
    return [s for s in results.summaries if s.role == "method"]


def _complete(results: Results, role: str) -> list[Summary]:
    """Summaries of what ran at every ratio, best first."""
    return [
        s
        for s in results.summaries
        if s.role == role and s.normalised_accuracy is not None and s.keeps == len(results.keeps)
    ]


def _best(results: Results) -> list[str]:
    ranked = _complete(results, "method")
    before = [s for s in ranked if not results.inside_llm(s.name)]
    inside = [s for s in ranked if results.inside_llm(s.name)]
    made = []
    if before:
        best = before[0]
        words = f"Best method before the LLM: {best.name}, with a mean normalised accuracy of "
        words += number(best.normalised_accuracy)
        if best.gain is not None:
            words += f" over all tasks and ratios, {best.gain:+.2f} over random token selection"
        made.append(words + ".")
        simple = [s.name for s in _complete(results, "control") if _at_least(s, best)]
        if simple:
            made.append(
                f"No method before the LLM is better than {' and '.join(simple)}, which score no "
                "token."
            )
    if inside:
        best, first = inside[0], results.first_pruning_layers().get(inside[0].name, 0)
        words = f"Best method inside the LLM: {best.name}, {number(best.normalised_accuracy)}"
        if first:
            words += f"; its first {first} layers process all visual tokens, so compare it with "
            words += "methods before the LLM at equal FLOPs"
        made.append(words + ".")
    return made


def _at_least(simple: Summary, best: Summary) -> bool:
    return simple.name in ("uniform", "grid_pool") and (
        simple.normalised_accuracy >= best.normalised_accuracy
    )


def _accurate(results: Results) -> list[str]:
    """How many methods keep 90 % of the accuracy range at each ratio."""
    names = [s.name for s in _methods(results)]
    parts = []
    for keep in results.keeps:
        values = {name: results.curve(name).get(keep) for name in names}
        measured = {name: value for name, value in values.items() if value is not None}
        good = [name for name, value in measured.items() if value >= THRESHOLD]
        if measured:
            count = f"{len(good)} of {len(measured)}" if good else "none"
            listed = f" ({', '.join(good)})" if 0 < len(good) <= MOST_NAMES else ""
            parts.append(f"{count} at {ratio(keep)}{listed}")
        if measured and not good:
            break
    if not parts:
        return []
    return [f"Methods with a normalised accuracy of {THRESHOLD} or more: {', '.join(parts)}."]


def _against_random(results: Results) -> list[str]:
    compared = {
        s.name: sign((s.gain, s.gain_interval)) for s in _methods(results) if s.gain_interval
    }
    if not compared:
        return []
    better = [name for name, found in compared.items() if found > 0]
    words = (
        f"{len(better)} of {len(compared)} methods are significantly better than random token "
        "selection (paired bootstrap, 95 % CI)"
    )
    for title, wanted in (("no significant difference", 0), ("significantly worse", -1)):
        names = [name for name, found in compared.items() if found == wanted]
        if names:
            words += f"; {title}: {', '.join(names)}"
    return [words + "."]


def _headroom(results: Results) -> list[str]:
    at = oracle_ratio(results)
    oracle = results.curve("oracle").get(at)
    others = {
        s.name: value
        for s in _methods(results)
        if not results.inside_llm(s.name) and (value := results.curve(s.name).get(at)) is not None
    }
    if oracle is None or not others:
        return []
    best = max(others, key=others.__getitem__)
    gap = oracle - others[best]
    return [
        f"{f'Headroom of {number(gap)}' if gap > 0 else 'No headroom'} at {ratio(at)}: an oracle "
        f"that keeps the tokens with the evidence reaches {number(oracle)}, the best method before "
        f"the LLM, {best}, {number(others[best])}."
    ]


def _above_full(results: Results) -> list[str]:
    at = oracle_ratio(results)
    better = [
        title_of(task)
        for task in results.kept_tasks()
        if (cell := results.cells.get((task, "oracle", at)))
        and cell.normalised_accuracy_interval
        and cell.normalised_accuracy_interval[0] > 1
    ]
    if not better:
        return []
    return [
        f"The oracle at {ratio(at)} is significantly more accurate than the full model on "
        f"{', '.join(better)}: other visual tokens distract the model there, and a normalised "
        "accuracy above 1 is possible."
    ]


def _hardest_task(results: Results) -> list[str]:
    keep = oracle_ratio(results)
    at = {
        task: cell.normalised_accuracy
        for task in results.kept_tasks()
        if (cell := results.cells.get((task, "random", keep)))
        and cell.normalised_accuracy is not None
    }
    if len(at) < 2:
        return []
    worst, best = min(at, key=at.__getitem__), max(at, key=at.__getitem__)
    if at[worst] == at[best]:
        return []
    return [
        f"Random token selection at {ratio(keep)} loses most on {title_of(worst)} (normalised "
        f"accuracy {number(at[worst])}) and least on {title_of(best)} ({number(at[best])})."
    ]


def _positions(results: Results) -> list[str]:
    made = []
    for task, found in positions(results).numbers.items():
        low, high = found["interval"]
        if low > 0 or high < 0:
            made.append(
                f"Packed instead of original position ids: accuracy {-100 * found['cost']:+.1f} "
                f"points on {title_of(task)} (random token selection, mean over 50, 25 and "
                "12.5 %)."
            )
    return made


def _evidence_removed(results: Results) -> list[str]:
    made = []
    for task in results.kept_tasks():
        row = results.row(task, "anti_oracle")
        value = results.normalised_accuracy(task, [row])[0] if row else None
        if value is None:
            continue
        if not results.has_evidence(task):
            made.append(
                f"{title_of(task)} asks about the whole image: no token counts as evidence, so the "
                "oracle has no evidence to keep and removing the evidence changes nothing. "
                f"{task} does not test which tokens a method keeps."
            )
        elif value >= INSENSITIVE:
            made.append(
                f"On {title_of(task)}, removing the evidence tokens costs little (normalised "
                f"accuracy {number(value)}): other tokens also contain the answer. {task} does not "
                "test token selection."
            )
        elif value >= 0.25:
            made.append(
                f"On {title_of(task)}, a normalised accuracy of {number(value)} is left without "
                "the evidence tokens: other tokens also contain a part of the answer."
            )
    return made


def _unequal_cost(results: Results) -> list[str]:
    keep = oracle_ratio(results)
    expected = keep * results.configuration["tokens"]
    made = []
    for s in _methods(results):
        cells = [c for t in results.tasks if (c := results.cells.get((t, s.name, keep)))]
        tokens = sum(c.tokens_mean for c in cells) / len(cells) if cells else 0
        if tokens >= 1.25 * expected:
            made.append(f"{s.name} ({tokens:.1f})")
    if not made:
        return []
    return [
        f"At {ratio(keep)} some methods process more than {expected:g} visual tokens per decoder "
        f"layer on average ({expected:g} = {ratio(keep)} of {results.configuration['tokens']}): "
        f"{', '.join(made)}. Compare them with the others at equal FLOPs."
    ]


def _insensitive(results: Results) -> list[str]:
    alike: dict[tuple, list[str]] = defaultdict(list)
    for name, k in results.first_pruning_layers().items():
        if tasks := results.insensitive_tasks(name):
            alike[k, tuple(tasks)].append(name)
    if not alike:
        return []
    told = (
        f"{', '.join(names)} (layer {k}) on {', '.join(tasks)}"
        for (k, tasks), names in sorted(alike.items())
    )
    return [
        "On some tasks the model no longer needs visual tokens at the layer where a method starts "
        f"to prune (normalised accuracy {INSENSITIVE} or more when all visual tokens are dropped "
        "at that layer). There the results show the cost of the method, not the quality of its "
        f"token selection (†): {'; '.join(told)}."
    ]


def _identical(results: Results) -> list[str]:
    """Pairs of methods with the same answers in all settings that both ran in."""
    answers = {
        s.name: {
            (task, keep): row["right"]
            for task in results.tasks
            for keep in results.keeps
            if (row := results.row(task, s.name, keep))
        }
        for s in _methods(results)
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
        told = f"{one} and {two} give identical answers in every setting"
        made.append(f"{told}: {reasons[0]}." if reasons else f"{told}.")
    return made


def _not_scored(results: Results) -> list[str]:
    spans = {task: results.span(task) for task in results.tasks if task not in results.kept_tasks()}
    if not spans:
        return []
    told = (f"{title_of(t)} ({100 * (full - base):+.1f})" for t, (base, full) in spans.items())
    return [
        f"Not included in the means: {', '.join(told)}. The full model must be at least "
        f"{100 * SPAN:g} points above the no-image baseline."
    ]


def _not_learned(results: Results) -> list[str]:
    """Tasks that the run leaves out: not learned (from the model card), or not measured."""
    card = mini.model_card(str(results.configuration["model"]))
    tested, kept = card.get("test", {}), card.get("kept", card.get("test", {}))
    made = []
    others = [title_of(task) for task in tested if task in kept and task not in results.tasks]
    if others:
        made.append(f"Learned by the model, but not part of this run: {', '.join(others)}.")
    told = [
        f"{title_of(task)} ({100 * row['full']:.1f} % with the image, "
        f"{100 * max(row['blind'], row['constant']):.1f} % without)"
        for task, row in tested.items()
        if task not in kept
    ]
    if told:
        made.append(
            f"Not measured, because the model itself has not learned the task: {', '.join(told)}. "
            "Use another model for these tasks."
        )
    return made


def _not_available(results: Results) -> list[str]:
    refused: dict[str, list[float]] = defaultdict(list)
    for name, keep in results.refusals():
        if keep is not None:
            refused[name].append(keep)
    alike: dict[tuple[float, ...], list[str]] = defaultdict(list)
    for name, keeps in refused.items():
        alike[tuple(sorted(keeps, reverse=True))].append(name)
    if not alike:
        return []
    told = (f"{', '.join(names)} ({ratios(keeps, results)})" for keeps, names in alike.items())
    return [f"Not available at every ratio on this model: {'; '.join(told)}."]


def absent(results: Results) -> list[str]:
    """Available methods that the run does not measure, with the reason; [] if they are many."""
    known = {
        name: cls
        for name, cls in registered().items()
        if cls.__module__.startswith("foveate.methods.") and name not in {*results.names, *CONTROLS}
    }
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, cls in known.items():
        if not cls.reduces:
            reason = "all visual tokens are kept; needs a fine-tuned model"
        elif cls.trained and not shipped(name):
            reason = "needs learned modules, no weights are included in the package"
        else:
            reason = "not part of this run"
        reasons[reason].append(name)
    if not known or len(known) > MOST_NAMES:
        return []
    told = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
    return [f"Available methods without a result here: {told}."]


FAILED = {
    1: "some tasks can be answered without the image, so they say little about token reduction",
    2: "the oracle is hardly better than random token selection, so these tasks can hardly tell "
    "methods apart",
    3: "the tasks do not favour the selection criteria that they were made for, so the ranking "
    "does not show which criterion (attention, diversity, text guidance) suits which task",
    4: "packed position ids have another effect on I2 and I1 than expected, so the results do not "
    "show what changed position ids cost",
    5: "a second training of the model ranks the methods differently, so the ranking is uncertain",
    6: "some methods change the scores of the model although they keep all visual tokens",
}
"""What a failed check means for the results, by the number of the check."""


def _failed_checks(results: Results) -> list[str]:
    verdicts = check(results)
    failed = [v for v in verdicts if v.passed is False]
    if not failed:
        return []
    told = "; ".join(f"{FAILED[v.number]} (check {v.number})" for v in failed)
    return [f"{len(failed)} of {len(verdicts)} checks of the benchmark failed: {told}."]


def ratios(keeps: Iterable[float], results: Results) -> str:
    """Ratios as text: "25 % and below" for the smallest measured ones, else a list."""
    keeps = sorted(keeps, reverse=True)
    tail = results.keeps[-len(keeps) :]
    if len(keeps) > 1 and all(map(math.isclose, keeps, tail)):
        return f"{ratio(keeps[0])} and below"
    return ", ".join(map(ratio, keeps))
