"""The page about a run, written from its stored rows alone."""

from __future__ import annotations

import shlex
from collections import defaultdict
from pathlib import Path

from foveate import mini
from foveate.atomic_file import replacing
from foveate.benchmarks.acceptance import check
from foveate.benchmarks.errors import BenchError
from foveate.benchmarks.key_findings import key_findings, ratios
from foveate.benchmarks.plot import draw
from foveate.benchmarks.results import Results
from foveate.benchmarks.tables import MISSING, Table, ratio, tables, title_of
from foveate.mini.world import gallery

BASELINES = {
    "random": "random token selection, mean of three seeds",
    "random_original": "the tokens of the first seed at their original position ids",
    "uniform": "evenly spaced tokens",
    "grid_pool": "average pooling over the token grid",
    "downsample": "a smaller input image",
    "oracle": "the tokens with the evidence for the answer, an upper reference",
}
PLOTS = {
    "pareto": "Normalised accuracy against FLOPs",
    "tasks": "Accuracy against retention ratio, one panel per task",
}


def write_page(results: Results, path: str | Path, plot: bool = True) -> list[Path]:
    """Write the page and its plots beside it.

    Args:
        results: the run.
        path: the Markdown file to write.
        plot: also draw the plots as SVG and show them on the page. Default True.

    Returns:
        The files that were written.
    """
    path = Path(path)
    models = "mini.md" if (path.parent / "mini.md").is_file() else None
    written = draw(results, path.with_suffix(""), ("svg",)) if plot else []
    text = page(results, [picture.name for picture in written], models)
    try:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"{str(path)!r} can't be written ({error.strerror}).") from None
    return [path, *written]


def page(results: Results, pictures: list[str], models: str | None = None) -> str:
    """The page as Markdown.

    Args:
        results: the run.
        pictures: the files of the plots.
        models: page about the embedded models, for a link to it. Default None: no link.
    """
    main, *details = tables(results) or [None]
    parts = [
        f"# Accuracy benchmark on {_embedded(results)}`{results.configuration['model']}`",
        _measured(results, models),
        "## Key findings",
        "\n".join(f"- {sentence}" for sentence in key_findings(results)),
    ]
    if main is not None:
        note = "Methods are in bold, controls and baselines in plain type. "
        parts += [f"## {main.title}", note + main.note, markdown(main)]
    parts += [f"![{_plot_title(name)}]({name})" for name in pictures]
    parts += ["## Details", f"In all tables, {MISSING}"] if details else []
    for table in details:
        parts += [f"### {table.title}", table.note, markdown(table)]
    if results.refusals():
        parts += ["### Settings that are not available", _refusals(results)]
    parts += ["### Checks of the benchmark", CHECKS, _checks(results)]
    parts += ["## How to reproduce", _reproduce(results)]
    return "\n\n".join(parts) + "\n"


CHECKS = (
    "These checks test the benchmark, not the methods: do the tasks need the image, does token "
    "selection matter, is keep = 100 % exact? A failed check limits what the tables "
    "can show."
)


def _embedded(results: Results) -> str:
    known = mini.model_card(str(results.configuration["model"]))
    return "the embedded model " if known else ""


def _measured(results: Results, models: str | None) -> str:
    """What was measured: model, tasks, metric, baselines."""
    c = results.configuration
    methods = sum(s.role == "method" for s in results.summaries)
    kind = "a model"
    if _embedded(results):
        link = f"[embedded]({models})" if models else "embedded"
        kind = f"an {link} LLaVA-type model"
    shown = [name for name in BASELINES if name in results.names]
    sentences = [
        f"{methods} token-reduction methods are compared on `{c['model']}`, {kind} with "
        f"{c['parameters'] / 1e6:.2f} M parameters, {c['layers']} decoder layers and {c['tokens']} "
        f"visual tokens per image ({c['size']} x {c['size']} px).",
        f"Each method answers the same {c['n']} questions per task at "
        f"{', '.join(map(ratio, results.keeps)) or '100 %'} of the visual tokens, on synthetic "
        "image tasks.",
        "The metric is the normalised accuracy, (accuracy - no-image baseline) / (full model - "
        "no-image baseline): 0 = no-image baseline, 1 = full model with all visual tokens.",
    ]
    lines = [" ".join(sentences)]
    lines.append("Tasks, each with an example question and its answer:")
    lines.append("\n".join(f"- {title_of(task)}: {_example(task)}" for task in results.tasks))
    if shown:
        lines.append("Baselines and controls at the same retention ratios:")
        lines.append("\n".join(f"- {name}: {BASELINES[name]}" for name in shown))
    lines.append(
        "The model and the images are small. Take the ranking as a first hint, and measure on your "
        "own model and data before you choose a method (`foveate tune`)."
    )
    return "\n\n".join(lines)


def _example(task: str) -> str:
    """An example question with its answer, and what the task tests."""
    shown = gallery.chosen(task)
    return f'"{shown.question}" **{shown.answer}**. {gallery.PURPOSES[task]}'


def _plot_title(name: str) -> str:
    stem = Path(name).stem
    return PLOTS.get(stem.rpartition("-")[2], stem)


def _refusals(results: Results) -> str:
    by_name: dict[str, dict[float, str]] = defaultdict(dict)
    for (name, keep), reason in results.refusals().items():
        by_name[name][keep] = reason
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, reasons in by_name.items():
        keeps = sorted(k for k in reasons if k is not None)
        at = f" at {ratios(keeps, results)}" if keeps else ""
        alike[at, reasons[keeps[-1] if keeps else None]].append(name)
    return "\n".join(f"- {', '.join(names)}{at}. {reason}" for (at, reason), names in alike.items())


def _checks(results: Results) -> str:
    return "\n".join(f"{v.number}. **{v.outcome}**: {v.title}. {v.details}" for v in check(results))


def _reproduce(results: Results) -> str:
    c = results.configuration
    versions = ", ".join(f"{name} {version}" for name, version in c["versions"].items())
    scored = (
        "the candidate answer with the highest likelihood"
        if c["mode"] == "likelihood"
        else "the greedily generated text, which must equal the answer"
    )
    return "\n\n".join(
        [
            f"```bash\n{command(results)}\n```",
            "Write this page again from the stored rows, without a measurement, with `foveate "
            "bench --no-measure --out FOLDER --page PAGE`.",
            f"An answer is {scored}. Split {c['split']} of world {c['world']}, weights "
            f"{c['weights']}, {c['dtype']} on {c['device']}, {versions}.",
        ]
    )


def command(results: Results) -> str:
    """The command that measures these rows."""
    c = results.configuration
    words = ["foveate", "bench", "--model", c["model"], "--n", str(c["n"])]
    words += ["--keep", ",".join(f"{100 * k:g}%" for k in results.keeps)]
    words += ["--tasks", ",".join(results.tasks)]
    methods = [s.name for s in results.summaries if s.role == "method"]
    words += ["--methods", ",".join(methods)] if methods else []
    if c["mode"] != "likelihood":
        words += ["--mode", c["mode"]]
    if c["split"] != "test":
        words += ["--split", c["split"]]
    return shlex.join(words)


def markdown(table: Table) -> str:
    """A table in Markdown; names of methods are bold, those of controls are not."""
    lines = [
        "| " + " | ".join(table.header) + " |",
        "|---" + "|--:" * (len(table.header) - 1) + "|",
    ]
    for row, strong in zip(table.rows, table.strong, strict=True):
        name = f"**{row[0]}**" if strong else row[0]
        lines.append("| " + " | ".join([name, *row[1:]]) + " |")
    return "\n".join(lines)
