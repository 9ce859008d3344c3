"""The tables of a run as text, for the terminal and for the page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from foveate.benchmarks.baseline_comparison import BASELINES, sign, task_types, type_title
from foveate.benchmarks.metrics import Cell, Interval
from foveate.benchmarks.results import Results

NONE = "–"
UNAVAILABLE = "n/a"
MISSING = (
    f"{UNAVAILABLE}: not available, the method cannot reach this ratio on this model. "
    f"{NONE}: not measured."
)
DAGGER = (
    "†: on at least one of these tasks the model no longer needs visual tokens at the first layer "
    "where this method prunes, so the accuracy there does not measure the token selection."
)
COMPOSITION = (
    " a+b: both methods, each keeps this ratio of its input tokens; the table of the theoretical "
    "speed-up has the resulting number of visual tokens."
)


@dataclass(frozen=True)
class Table:
    """One table as text.

    Attributes:
        title: the heading.
        note: what the cells mean.
        header: column names; the first column names the row.
        rows: the cells, row by row.
        strong: per row, True for a method and False for a control or baseline.
    """

    title: str
    note: str
    header: list[str]
    rows: list[list[str]]
    strong: list[bool]


def tables(results: Results) -> list[Table]:
    """All tables that the results allow, the main table first."""
    made = [
        overview(results),
        against_baselines(results),
        by_task(results),
        scale(results),
        theoretical_cost(results),
        measured_cost(results),
        without_visual_tokens(results),
        *accuracies(results),
    ]
    return [table for table in made if table.rows]


def overview(results: Results) -> Table:
    """The main table: mean normalised accuracy by retention ratio."""
    at = oracle_ratio(results)
    rows, strong = [], []
    for s in results.summaries if results.kept_tasks() else ():
        curve, cost = results.curve(s.name), results.flops_share(s.name, at)
        rows.append(
            [
                label(results, s.name),
                *(
                    number(curve[keep]) if keep in curve else missing(results, s.name, keep)
                    for keep in results.keeps
                ),
                _with(number(s.normalised_accuracy), s.normalised_accuracy_interval),
                "0" if s.name == "random" else _with(_signed(s.gain), s.gain_interval),
                _k90(s.k90, s.below),
                missing(results, s.name, at) if cost is None else whole_percent(cost),
            ]
        )
        strong.append(s.role == "method")
    return Table(
        "Normalised accuracy by retention ratio",
        f"Mean over {', '.join(results.kept_tasks())}; 0 = no-image baseline, 1 = full model, in "
        f"brackets the 95 % CI (paired bootstrap). {MISSING} Mean: over the available ratios. "
        "Methods that are not available at every ratio are below the others: their mean is over "
        "fewer and larger ratios. Over random: difference to random token selection at the same "
        "ratios. K90: retention ratio at which the normalised accuracy reaches 0.9, interpolated "
        "between measured ratios (it is 1 at 100 %). ≤: the smallest measured ratio already "
        f"reaches 0.9. Prefill FLOPs: of the LLM with token selection, at {ratio(at)}, relative to "
        f"the full model. {DAGGER}"
        + (COMPOSITION if any("+" in s.name for s in results.summaries) else ""),
        ["method", *map(ratio, results.keeps), "mean", "over random", "K90"]
        + [f"prefill FLOPs at {ratio(at)}"],
        rows,
        strong,
    )


def against_baselines(results: Results) -> Table:
    """Normalised accuracy over random token selection and over downsampling, by task type."""
    types = task_types(results)
    bases = [base for base in BASELINES if results.curve(base)]
    rows = [
        [
            label(results, s.name),
            *(
                " / ".join(_lead(results.lead(s.name, base, tasks)) for base in bases)
                for tasks in types.values()
            ),
        ]
        for s in results.summaries
        if bases and s.role == "method"
    ]
    return Table(
        f"Difference to {' and '.join(bases)} by task type",
        f"Normalised accuracy over {' / over '.join(bases)} at the same ratios, mean over ratios "
        "and tasks. *: significant (paired bootstrap, 95 % CI).",
        ["method", *(type_title(kind, tasks) for kind, tasks in types.items())],
        rows,
        [True] * len(rows),
    )


def by_task(results: Results) -> Table:
    """Mean normalised accuracy over ratios, by task."""
    rows, strong = [], []
    for s in results.summaries if results.kept_tasks() else ():
        cells = []
        for task in results.kept_tasks():
            curve = results.curve(s.name, [task])
            mean = number(sum(curve.values()) / len(curve)) if curve else NONE
            k90 = _k90(*results.k90(s.name, [task]))
            cells.append(f"{mean} ({k90})" if curve else NONE)
        rows.append([label(results, s.name), *cells])
        strong.append(s.role == "method")
    return Table(
        "Normalised accuracy by task",
        "Mean over the available ratios, in brackets K90 for this task (interpolated).",
        ["method", *(title_of(task) for task in results.kept_tasks())],
        rows,
        strong,
    )


def scale(results: Results) -> Table:
    """The accuracies that define 0 and 1 of the scale, and the controls that know the evidence."""
    at = oracle_ratio(results)
    rows = []
    for task in results.tasks:
        full, removed = results.full_model(task), results.row(task, "anti_oracle")
        nothing = UNAVAILABLE if removed else NONE
        shown = results.has_evidence(task)
        oracle = results.cells.get((task, "oracle", at))
        constant, plain = results.row(task, "constant"), results.row(task, "blind")
        rows.append(
            [
                title_of(task),
                str(full["n"]),
                percent(constant["accuracy"]) if constant else NONE,
                percent(plain["accuracy"]) if plain else NONE,
                percent(full["accuracy"]),
                number(oracle.normalised_accuracy) if oracle else NONE,
                number(results.normalised_accuracy(task, [removed])[0]) if shown else nothing,
                whole_percent(removed["tokens_out"] / removed["tokens_in"]) if shown else nothing,
            ]
        )
    return Table(
        "No-image baseline and full model",
        "The first three are accuracies in %: the no-image baseline is the better of the best "
        "constant answer and constant-colour images (each image replaced by its mean colour). "
        "The others are normalised accuracies. Oracle: keeps the tokens with the evidence "
        "for the answer. Evidence removed: drops these tokens and keeps all others "
        f"({UNAVAILABLE}: the question is about the whole image, no token counts as evidence). For "
        "counting tasks the evidence is every object, and the oracle also keeps background tokens.",
        [
            *("task", "items", "constant answer", "constant-colour image", "full model"),
            *(f"oracle at {ratio(at)}", "evidence removed", "tokens kept then"),
        ],
        rows,
        [True] * len(rows),
    )


def theoretical_cost(results: Results) -> Table:
    """Theoretical prefill speed-up and visual tokens per decoder layer."""

    def cell(cells: list[Cell]) -> str:
        share, tokens = _mean(c.flops_share for c in cells), _mean(c.tokens_mean for c in cells)
        return f"{1 / share:.2f}x ({tokens:.1f})"

    full = [results.full_model(task) for task in results.tasks]
    note = "Prefill FLOPs of the full model over those of the method, token selection included; in "
    note += "brackets the visual tokens per decoder layer (mean over layers)."
    if full:
        flops = _mean(row["flops"] for row in full)
        note += f" Full model: {full[0]['tokens_in']:.0f} visual tokens, {flops / 1e6:.1f} MFLOPs."
    return _cost_table(results, "Theoretical prefill speed-up", note, cell)


def measured_cost(results: Results) -> Table:
    """Measured prefill speed-up, prefill time and selection overhead."""
    times = {task: results.full_model(task)["seconds"] for task in results.tasks}

    def cell(cells: list[Cell]) -> str:
        prefill = _mean(c.seconds.get("prefill", 0) for c in cells)
        select = _mean(c.seconds.get("select", 0) for c in cells)
        full = _mean(times[c.task].get("prefill", 0) for c in cells)
        speedup = f"{full / (prefill + select):.2f}x" if prefill + select else NONE
        return f"{speedup} ({1e3 * prefill:.2f} + {1e3 * select:.2f})"

    note = "Prefill time of the full model over prefill time plus selection overhead; in brackets "
    note += "both in ms per item. The vision encoder is not included."
    if times:
        prefill = 1e3 * _mean(t["prefill"] for t in times.values())
        encode = 1e3 * _mean(t["encode"] for t in times.values())
        note += f" Full model: prefill {prefill:.2f} ms, vision encoder {encode:.2f} ms."
    device = results.configuration["device"]
    note += f" Device: {device}, batch size {results.configuration['batch']}."
    return _cost_table(results, "Measured prefill speed-up", note + effort(results), cell)


def _cost_table(results: Results, title: str, note: str, cell) -> Table:
    rows, strong = [], []
    for s in results.summaries:
        line = []
        for keep in results.keeps:
            cells = [c for t in results.tasks if (c := results.cells.get((t, s.name, keep)))]
            line.append(cell(cells) if cells else missing(results, s.name, keep))
        rows.append([label(results, s.name), *line])
        strong.append(s.role == "method")
    return Table(title, note, ["method", *map(ratio, results.keeps)], rows, strong)


def effort(results: Results) -> str:
    """How long the run took, and the overhead of the benchmark itself."""
    rows = [row["seconds"] | {"n": row["n"]} for row in results.rows if "seconds" in row]
    if not rows or not all(row["wall"] for row in rows):
        return ""
    questions = sum(row["n"] for row in rows)
    typical = 1000 * median(row["wall"] for row in rows)
    own = median(row["own"] / row["wall"] for row in rows)
    return (
        f" The run answered {questions:,} questions, 1,000 of them in {typical:.1f} s; the "
        f"overhead of the benchmark is {own:.1%} of the time (medians over settings)."
    )


def without_visual_tokens(results: Results) -> Table:
    """Normalised accuracy with all visual tokens dropped before layer k."""
    rows = []
    layers = range(results.configuration["layers"])
    for task in results.kept_tasks():
        curve = results.without_visual_tokens(task)
        if curve:
            rows.append([title_of(task), *(number(curve.get(k)) for k in layers)])
    return Table(
        "Without visual tokens from layer k on",
        "Normalised accuracy with all visual tokens dropped before decoder layer k (0-based). "
        "About 1: layer k and all later layers no longer need visual tokens for this task, so the "
        "task cannot compare the token selection of methods that prune there.",
        ["task", *(f"k = {k}" for k in layers)],
        rows,
        [True] * len(rows),
    )


def accuracies(results: Results) -> list[Table]:
    """Accuracy with its interval, one table per task."""
    made = []
    for task in results.tasks:
        rows, strong = [], []
        for s in results.summaries:
            cells = [results.cells.get((task, s.name, keep)) for keep in results.keeps]
            if any(cells):
                shown = zip(cells, results.keeps, strict=True)
                rows.append(
                    [
                        label(results, s.name),
                        *(_accuracy(c) if c else missing(results, s.name, k) for c, k in shown),
                    ]
                )
                strong.append(s.role == "method")
        no_image, full = results.span(task)
        made.append(
            Table(
                f"Accuracy on {title_of(task)}",
                f"In %, in brackets the 95 % Wilson CI. No-image baseline {percent(no_image)}, "
                f"full model {percent(full)}. *: significantly different from random token "
                "selection (paired bootstrap, 95 % CI). +: p < 0.05 in McNemar's test against "
                "random token selection with seed 0.",
                ["method", *map(ratio, results.keeps)],
                rows,
                strong,
            )
        )
    return made


def oracle_ratio(results: Results) -> float:
    """The measured ratio closest to 12.5 %, for findings at one ratio."""
    return min(results.keeps, key=lambda keep: abs(math.log(keep / 0.125)), default=0.125)


def label(results: Results, name: str) -> str:
    """A method's name, with † if a scored task is insensitive to where the method prunes."""
    return f"{name} †" if results.insensitive_tasks(name) else name


def missing(results: Results, name: str, keep: float) -> str:
    """The cell of a setting without a figure: not available, or not measured."""
    return UNAVAILABLE if (name, keep) in results.refusals() else NONE


def title_of(task: str) -> str:
    """A task's id and title."""
    from foveate.mini.world import CATALOGUE

    return f"{task} {CATALOGUE[task].title}" if task in CATALOGUE else task


def number(value: float | None) -> str:
    """A normalised accuracy with two decimals."""
    return NONE if value is None else f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def percent(share: float) -> str:
    """A share in percent with one decimal."""
    return f"{100 * share:.1f}"


def whole_percent(share: float) -> str:
    """A share in percent without decimals."""
    return f"{100 * share:.0f} %"


def ratio(keep: float) -> str:
    """A retention ratio in percent."""
    return f"{100 * keep:.4g} %"


def _signed(value: float | None) -> str:
    return NONE if value is None else f"{value:+.2f}".replace("-0.00", "+0.00")


def _lead(found: tuple[float, Interval] | None) -> str:
    return NONE if found is None else f"{_signed(found[0])}{'*' if sign(found) else ''}"


def _with(text: str, found: Interval) -> str:
    return f"{text} [{_end(found[0])}, {_end(found[1])}]" if found else text


def _end(value: float) -> str:
    """An end of an interval, with a third or fourth decimal where two would show 0.00."""
    digits = next((n for n in (2, 3, 4) if abs(value) >= 0.5 * 10**-n), 2)
    return f"{value:.{digits}f}" if abs(value) >= 0.5e-4 else number(value)


def _k90(k90: float | None, below: bool) -> str:
    return NONE if k90 is None else f"{'≤ ' if below else ''}{100 * k90:.3g} %"


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def _accuracy(cell: Cell) -> str:
    low, high = cell.accuracy_interval
    text = f"{percent(cell.accuracy)} [{percent(low)}, {percent(high)}]"
    if cell.gain_interval and not cell.gain_interval[0] <= 0 <= cell.gain_interval[1]:
        text += " *"
    return text + ("+" if cell.p is not None and cell.p < 0.05 else "")
