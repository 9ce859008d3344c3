"""The tables of a run as words, for the screen and for the page alike."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from foveate.benchmarks.baseline_comparison import BASES, kinds, named, sign
from foveate.benchmarks.metrics import Cell, Interval, Summary
from foveate.benchmarks.results import Results


@dataclass(frozen=True)
class Table:
    """A title, what its cells mean, a header and rows of text; `strong` rows are no controls."""

    title: str
    note: str
    header: list[str]
    rows: list[list[str]]
    strong: list[bool]


def tables(results: Results) -> list[Table]:
    """All tables that the results allow, in reading order."""
    made = [
        scale(results),
        overview(results),
        against(results),
        by_task(results),
        *accuracies(results),
        cost(results),
        late_blind(results),
    ]
    return [table for table in made if table.rows]


def scale(results: Results) -> Table:
    """Where 0 and 1 lie on every task."""
    rows = []
    for task in results.tasks:
        full, anti = results.full_model(task), results.row(task, "anti_oracle")
        cell = results.cells.get((task, "oracle", 0.125))
        leak = results.normalised_accuracy(task, [anti])[0] if anti else None
        constant, mean = results.row(task, "constant"), results.row(task, "blind")
        rows.append(
            [
                title_of(task),
                str(full["n"]),
                percent(constant["accuracy"]) if constant else "–",
                percent(mean["accuracy"]) if mean else "–",
                percent(full["accuracy"]),
                number(cell.normalised_accuracy) if cell else "–",
                number(leak),
                f"{anti['tokens_out'] / anti['tokens_in']:.0%}" if anti else "–",
            ]
        )
    return Table(
        "Where 0 and 1 lie",
        "Accuracy in %. Blind, R = 0, is the better of the best constant answer and mean-colour "
        "pictures; full is R = 1. Anti-oracle drops the evidence and keeps the rest: what is left "
        "of R has leaked through the encoder, or the answer is an absence. For counting, evidence "
        "is all objects, and the oracle keeps a share of background too.",
        [
            *("task", "items", "constant", "mean colour", "full"),
            *("oracle R at 12.5 %", "anti-oracle R", "tokens it keeps"),
        ],
        rows,
        [True] * len(rows),
    )


def overview(results: Results) -> Table:
    """Mean R over tasks, by keep."""
    rows, strong = [], []
    for s in results.summaries if results.kept_tasks() else ():
        curve = results.curve(s.name)
        rows.append(
            [
                label(results, s.name),
                *(number(curve.get(keep)) for keep in results.keeps),
                _with(number(s.normalised_accuracy), s.normalised_accuracy_interval),
                _with(_signed(s.gain), s.gain_interval),
                _k90(s),
            ]
        )
        strong.append(s.role == "method")
    return Table(
        "Retained skill R",
        f"Mean over {', '.join(results.kept_tasks())}, with 95 % intervals. Mean: over the keeps "
        "that a method can run at. K90: smallest keep with R of 0.9. Above random: paired, at the "
        "same keeps. † acts where most of these tasks are answered already: see the last table.",
        ["method", *map(_keep, results.keeps), "mean R", "above random", "K90"],
        rows,
        strong,
    )


def against(results: Results) -> Table:
    """R above random and downsample, by kind of question."""
    asked = kinds(results)
    bases = [base for base in BASES if results.curve(base)]
    rows = [
        [
            label(results, s.name),
            *(
                " / ".join(_lead(results.lead(s.name, base, tasks)) for base in bases)
                for tasks in asked.values()
            ),
        ]
        for s in results.summaries
        if bases and s.role == "method"
    ]
    return Table(
        f"Against {' and '.join(bases)}",
        f"R above {' / above '.join(bases)} at the same keeps, mean over keeps and tasks; * where "
        "the paired 95 % interval leaves 0 out.",
        ["method", *(named(kind, tasks) for kind, tasks in asked.items())],
        rows,
        [True] * len(rows),
    )


def by_task(results: Results) -> Table:
    """Mean R over keeps, by task."""
    rows, strong = [], []
    for s in results.summaries if results.kept_tasks() else ():
        cells = []
        for task in results.kept_tasks():
            curve = results.curve(s.name, [task])
            k90, below = results.k90(s.name, [task])
            mean = number(sum(curve.values()) / len(curve)) if curve else "–"
            cells.append(f"{mean} ({_share(k90, below)})" if curve else "–")
        rows.append([label(results, s.name), *cells])
        strong.append(s.role == "method")
    return Table(
        "Task by task",
        "Mean R over keeps (K90).",
        ["method", *(title_of(task) for task in results.kept_tasks())],
        rows,
        strong,
    )


def accuracies(results: Results) -> list[Table]:
    """Accuracy with its interval, one table per task."""
    made = []
    for task in results.tasks:
        rows, strong = [], []
        for s in results.summaries:
            cells = [results.cells.get((task, s.name, keep)) for keep in results.keeps]
            if any(cells):
                rows.append([label(results, s.name), *(_accuracy(cell) for cell in cells)])
                strong.append(s.role == "method")
        blind, full = results.span(task)
        made.append(
            Table(
                f"Accuracy on {title_of(task)}",
                f"In %, with Wilson's 95 % interval; blind {percent(blind)}, full {percent(full)}. "
                "* differs from random: the paired bootstrap interval leaves 0 out. p < 0.05 of "
                "McNemar's test against random of seed 0: +.",
                ["method", *map(_keep, results.keeps)],
                rows,
                strong,
            )
        )
    return made


def cost(results: Results) -> Table:
    """Tokens, FLOPs and times, means over tasks."""
    rows, strong = [], []
    for s in results.summaries:
        cells = []
        for keep in results.keeps:
            found = [c for t in results.tasks if (c := results.cells.get((t, s.name, keep)))]
            if not found:
                cells.append("–")
                continue
            tokens = sum(c.tokens_mean for c in found) / len(found)
            flops = sum(c.flops_share for c in found) / len(found)
            prefill = sum(c.seconds.get("prefill", 0) for c in found) / len(found)
            select = sum(c.seconds.get("select", 0) for c in found) / len(found)
            cells.append(f"{tokens:.1f} · {flops:.0%} · {1e3 * prefill:.2f} + {1e3 * select:.2f}")
        rows.append([label(results, s.name), *cells])
        strong.append(s.role == "method")
    full = [results.full_model(task) for task in results.tasks]
    note = "Visual tokens, mean over decoder layers · FLOPs of the language model's prefill and of "
    note += "the token selection, share of full · milliseconds per item, prefill + selection."
    if full:
        flops = sum(r["flops"] for r in full) / len(full)
        prefill = 1e3 * sum(r["seconds"]["prefill"] for r in full) / len(full)
        encode = 1e3 * sum(r["seconds"]["encode"] for r in full) / len(full)
        note += (
            f" Full: {full[0]['tokens_in']:.0f} tokens, {flops / 1e6:.1f} MFLOPs, {prefill:.2f} ms "
            f"behind {encode:.2f} ms of encoding."
        )
    return Table(
        "Cost", note + effort(results), ["method", *map(_keep, results.keeps)], rows, strong
    )


def effort(results: Results) -> str:
    """How long the run took, and how much of that the bench kept for itself."""
    rows = [row["seconds"] | {"n": row["n"]} for row in results.rows if "seconds" in row]
    if not rows or not all(row["wall"] for row in rows):
        return ""
    asked = sum(row["n"] for row in rows)
    typical = 1000 * median(row["wall"] for row in rows)
    own = median(row["own"] / row["wall"] for row in rows)
    return (
        f" The run asked {asked:,} questions; 1,000 of them take {typical:.1f} s, of which "
        f"{own:.1%} are the bench's own (medians over settings)."
    )


def late_blind(results: Results) -> Table:
    """R without any visual token from layer k on."""
    rows = []
    layers = range(results.configuration["layers"])
    for task in results.kept_tasks():
        curve = results.without_visual_tokens(task)
        if curve:
            rows.append([title_of(task), *(number(curve.get(k)) for k in layers)])
    return Table(
        "Without visual tokens from layer k on",
        "R. Where it is about 1, layer k and all later ones no longer read visual tokens, and the "
        "task can't tell apart methods that drop them there.",
        ["task", *(f"k = {k}" for k in layers)],
        rows,
        [True] * len(rows),
    )


def label(results: Results, name: str) -> str:
    """A method's name, with a dagger where most kept tasks can't tell how well it chooses."""
    return (
        f"{name} †"
        if 2 * len(results.insensitive_tasks(name)) > len(results.kept_tasks())
        else name
    )


def title_of(task: str) -> str:
    """A task's id and title."""
    from foveate.mini.world import CATALOGUE

    return f"{task} {CATALOGUE[task].title}" if task in CATALOGUE else task


def number(value: float | None) -> str:
    """R with two decimals."""
    return "–" if value is None else f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def percent(share: float) -> str:
    """A share in percent with one decimal."""
    return f"{100 * share:.1f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _lead(found: tuple[float, Interval] | None) -> str:
    return "–" if found is None else f"{found[0]:+.2f}{'*' if sign(found) else ''}"


def _with(text: str, found: Interval) -> str:
    return f"{text} [{number(found[0])}, {number(found[1])}]" if found else text


def _keep(share: float) -> str:
    return f"{100 * share:.4g} %"


def _k90(s: Summary) -> str:
    return _share(s.k90, s.below)


def _share(k90: float | None, below: bool) -> str:
    if k90 is None:
        return "–"
    return f"{'≤ ' if below else ''}{100 * k90:.3g} %"


def _accuracy(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    low, high = cell.accuracy_interval
    text = f"{percent(cell.accuracy)} [{percent(low)}, {percent(high)}]"
    if cell.gain_interval and not cell.gain_interval[0] <= 0 <= cell.gain_interval[1]:
        text += " *"
    return text + ("+" if cell.p is not None and cell.p < 0.05 else "")
