"""The card of a trained set of parts: JSON for machines, Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foveate.benchmarks.evaluation import evaluate_method
from foveate.benchmarks.loaded_model import LoadedModel
from foveate.benchmarks.task_items import TaskItems
from foveate.method import Composed, Method
from foveate.mini.progress import bar
from foveate.trained import RANDOM
from foveate.training.recipe import Row


def measure(
    base: LoadedModel, rows: Mapping[str, Row], count: int, progress: bool = False
) -> dict[str, dict[str, Any]]:
    """By name of a method: accuracy by task on `count` test items each, and what it cost.

    "tokens": visual tokens that a layer held on average, as a share of all. "spread": the standard
    deviation of the mean accuracy, from the number of items.
    """
    pairs = {name: row if isinstance(row, tuple) else (base, row) for name, row in rows.items()}
    pairs = {"bare": (base, Composed()), **pairs}
    table: dict[str, dict[str, Any]] = {name: {"tasks": {}} for name in pairs}
    with bar("measuring", len(base.tasks) * len(pairs), show=progress) as tick, torch.no_grad():
        done = 0
        for task in base.tasks:
            questions = TaskItems(base, task, count)
            for name, (under, method) in pairs.items():
                # Some rows of a table must see the questions ahead.
                before = getattr(method, "before", None)
                found = evaluate_method(under, questions.batches, method, before=before)
                table[name]["tasks"][task] = round(float(found.right.mean()), 4)
                costs = table[name].setdefault("costs", [])
                costs.append((found.tokens_mean / found.tokens_in, found.flops / found.flops_full))
                tick(done := done + 1, f"{task} {name}")
    for name, row in table.items():
        rates = np.array(list(row["tasks"].values()))
        row["method"] = _told(pairs[name][1])
        row["mean"] = round(float(rates.mean()), 4)
        spread = np.sqrt((rates * (1 - rates) / count).sum()) / len(rates)
        row["spread"] = round(float(spread), 4)
        row["tokens"], row["flops"] = (
            round(float(v), 4) for v in np.mean(row.pop("costs"), axis=0)
        )
    return table


def _told(method: Method) -> str:
    """A method without the folder of its weights, which is where the card lies."""
    weights = getattr(method, "weights", None)
    own = weights is not None and not weights.startswith(RANDOM)
    return repr(replace(method, weights=None) if own else method)


def write_card(
    folder: Path,
    base: LoadedModel,
    facts: dict[str, Any],
    history: list[dict[str, float]],
    rows: Mapping[str, Row],
    count: int,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure the methods in `rows` and write `card.json` and `README.md` into `folder`."""
    card = {**facts, "base": {"name": base.name, "weights": base.weights}}
    if rows:
        card["items"] = count
        card["test"] = measure(base, rows, count, progress)
    card["history"] = history
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(markdown(card), encoding="utf-8")
    return card


def markdown(card: dict[str, Any]) -> str:
    """The card as a page."""
    name = card["base"]["name"]
    what = {
        "parts": f"Trained parts of `{card['slug']}` for the base model {name}, whose own weights "
        "stayed as they were.",
        "model": f"The base model {name}, trained on with `{card['slug']}`.",
    }[card["trains"]]
    parts = [
        f"# {card['slug']} for {name}",
        f"{what} {card['recipe']['steps']} steps in "
        f"{card['seconds'] / 60:.1f} minutes, seed {card['seed']}.",
    ]
    if "test" in card:
        parts += [
            "## Accuracy",
            _accuracy(card["test"]),
            f"{card['items']} test items per task, the likeliest candidate counts. Tokens: visual "
            "tokens that a decoder layer holds on average; FLOPs: of the decoder's prefill; both "
            "as shares of the bare model. ± is one standard deviation of the mean.",
        ]
    parts += ["## Loss", *filter(None, [card["summary"]]), _curve(card["history"])]
    if card["command"]:
        parts.append(f"Made by `{card['command']}`; all numbers are in `card.json`.")
    return "\n\n".join(parts) + "\n"


def _accuracy(table: dict[str, dict[str, Any]]) -> str:
    tasks = list(next(iter(table.values()))["tasks"])
    lines = [
        f"| | tokens | FLOPs | {' | '.join(tasks)} | mean |",
        "|---" * (len(tasks) + 4) + "|",
    ]
    for name, row in table.items():
        rates = " | ".join(f"{row['tasks'][task]:.3f}" for task in tasks)
        lines.append(
            f"| {name} | {row['tokens']:.1%} | {row['flops']:.1%} | {rates} | "
            f"{row['mean']:.3f} ± {row['spread']:.3f} |"
        )
    return "\n".join(lines)


def _curve(history: list[dict[str, float]], width: int = 12) -> str:
    names = list(dict.fromkeys(name for record in history for name in record))
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    stride = max(1, len(history) // width)
    for record in history[::-1][::stride][::-1]:
        cells = [f"{record[name]:g}" if name in record else "–" for name in names]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
