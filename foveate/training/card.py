"""The card of a training run: `card.json` and the page `README.md`."""

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

# The row without a method.
FULL = "full model"


def measure(
    base: LoadedModel, rows: Mapping[str, Row], count: int, progress: bool = False
) -> dict[str, dict[str, Any]]:
    """Accuracy by task, retention ratio and FLOPs of every row.

    "tokens" is the mean retention ratio over the decoder layers, "flops" the prefill FLOPs relative
    to the full model, "spread" the standard error of the mean accuracy.

    Args:
        base: the base model.
        rows: methods by label.
        count: test items per task.
        progress: show a progress bar.
    """
    pairs = {name: row if isinstance(row, tuple) else (base, row) for name, row in rows.items()}
    pairs = {FULL: (base, Composed()), **pairs}
    table: dict[str, dict[str, Any]] = {name: {"tasks": {}} for name in pairs}
    with bar("evaluating", len(base.tasks) * len(pairs), show=progress) as tick, torch.no_grad():
        done = 0
        for task in base.tasks:
            questions = TaskItems(base, task, count)
            for name, (under, method) in pairs.items():
                # Oracle rows read the questions before the call.
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
    """`repr` of a method without the folder of its weights, which holds the card too."""
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
    """Evaluate the methods in `rows` and write `card.json` and `README.md` to `folder`."""
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
        "parts": f"Learned modules of `{card['slug']}` for the base model `{name}`, which stays "
        "frozen.",
        "model": f"The base model `{name}`, fine-tuned with `{card['slug']}`.",
    }[card["trains"]]
    parts = [
        f"# {card['slug']} for {name}",
        what,
        f"- training: {card['recipe']['steps']} steps in {card['seconds'] / 60:.1f} minutes\n"
        f"- seed: {card['seed']}",
    ]
    if "test" in card:
        parts += [
            "## Accuracy",
            _accuracy(card["test"]),
            f"{card['items']} test items per task. The answer is the candidate with the highest "
            "likelihood.",
            "- Tokens: retention ratio of the visual tokens, mean over the decoder layers.\n"
            "- FLOPs: of the LLM's prefill, relative to the full model.\n"
            "- ±: one standard error of the mean.",
        ]
    parts += ["## Training history", *filter(None, [card["summary"]]), _curve(card["history"])]
    if card["command"]:
        parts.append(f"Reproduce with `{card['command']}`. All numbers are in `card.json`.")
    return "\n\n".join(parts) + "\n"


def _accuracy(table: dict[str, dict[str, Any]]) -> str:
    tasks = list(next(iter(table.values()))["tasks"])
    lines = [
        f"| method | tokens | FLOPs | {' | '.join(tasks)} | mean |",
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
