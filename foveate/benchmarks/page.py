"""The page about a run, written from its rows alone."""

from __future__ import annotations

import shlex
from pathlib import Path

from foveate.atomic_file import replacing
from foveate.benchmarks.acceptance import check
from foveate.benchmarks.errors import BenchError
from foveate.benchmarks.key_findings import seen
from foveate.benchmarks.plot import draw
from foveate.benchmarks.results import Results
from foveate.benchmarks.tables import Table, tables


def write_page(results: Results, path: str | Path, plot: bool = True) -> list[Path]:
    """Write the page and its pictures beside it; the files that were written."""
    path = Path(path)
    written = draw(results, path.with_suffix(""), ("svg",)) if plot else []
    text = page(results, [picture.name for picture in written])
    try:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"{str(path)!r} can't be written ({error.strerror}).") from None
    return [path, *written]


def page(results: Results, pictures: list[str]) -> str:
    """The page as Markdown."""
    c = results.configuration
    versions = ", ".join(f"{name} {version}" for name, version in c["versions"].items())
    parts = [
        "# The embedded bench",
        f"`{command(results)}`",
        f"{c['model']}, {c['parameters'] / 1e6:.2f} M parameters (weights {c['weights']}), world "
        f"{c['world']}, split {c['split']}, {c['n']} items per task, pictures of {c['size']} px, "
        f"{c['tokens']} visual tokens. Answers by "
        + (
            "likelihood of the candidates"
            if c["mode"] == "likelihood"
            else "greedy generation, exactly right or wrong"
        )
        + f"; {c['dtype']} on {c['device']}; {versions}. "
        "Written by `foveate bench --page` from the rows of that run; nothing here is typed in.",
        "R, retained skill, is (accuracy - blind) / (full - blind): 1 is the model with all "
        "tokens, 0 the better of a constant answer and pictures without content. It is not "
        "clipped. Random is the mean of three draws; random_original keeps the same tokens as the "
        "first of them at their original positions.",
        "## What is seen",
        "\n".join(f"- {sentence}" for sentence in seen(results)),
    ]
    parts += [f"![{name.removesuffix('.svg')}]({name})" for name in pictures]
    for table in tables(results):
        parts += [f"## {table.title}", table.note, markdown(table)]
    parts += ["## Checks of the bench itself", _checks(results)]
    refused = {name: reason for (name, _), reason in results.refusals().items()}
    if refused:
        parts += [
            "## What could not run",
            "\n".join(f"- {name}: {reason}" for name, reason in refused.items()),
        ]
    return "\n\n".join(parts) + "\n"


def command(results: Results) -> str:
    """The command that makes these rows."""
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


def _checks(results: Results) -> str:
    return "\n".join(f"{v.number}. **{v.word}**: {v.title}. {v.words}" for v in check(results))
