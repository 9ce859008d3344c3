"""The model card of a trained mini model: JSON for machines, Markdown for people."""

import json
from pathlib import Path

from .evaluate import evaluate
from .weights_loading import load_folder
from .world import TASKS, items


def measure(folder: Path, count: int, split: str = "test", progress: bool = False) -> dict:
    """Accuracies of the saved weights by task: full, blind and constant, ``count`` items each."""
    model, processor = load_folder(folder)
    table = {}
    for task in TASKS:
        asked = items(task, split, count)
        full = evaluate(model, processor, asked, progress=progress)
        blind = evaluate(model, processor, asked, blind=True, progress=progress)
        likely = evaluate(model, processor, asked, mode="likelihood", progress=progress)
        table[task] = {
            "title": TASKS[task].title,
            "items": count,
            "full": round(full.accuracy[task], 4),
            "likelihood": round(likely.accuracy[task], 4),
            "blind": round(blind.accuracy[task], 4),
            "constant": round(full.constant[task], 4),
        }
    return table


def _curve(history: list[dict], width: int = 12) -> str:
    rows = ["| step | seconds | alignment | answers |", "|---|---|---|---|"]
    stride = max(1, len(history) // width)
    kept = history[::-1][::stride][::-1]
    for record in kept:
        cells = [record["step"], record["seconds"], record.get("alignment"), record.get("answers")]
        rows.append("| " + " | ".join("–" if c is None else f"{c:g}" for c in cells) + " |")
    return "\n".join(rows)


def _table(table: dict) -> str:
    rows = [
        "| task | items | full, greedy | full, likelihood | blind | constant |",
        "|---|---|---|---|---|---|",
    ]
    for task, row in table.items():
        cells = [f"{row[k]:.3f}" for k in ("full", "likelihood", "blind", "constant")]
        rows.append(f"| {task} {row['title']} | {row['items']} | {' | '.join(cells)} |")
    return "\n".join(rows)


def markdown(card: dict) -> str:
    """The card as a page."""
    recipe = card["recipe"]
    pictures = (
        recipe["warm_up_steps"] * recipe["warm_up_batch"]
        + recipe["joint_steps"] * recipe["joint_batch"]
    )
    parts = [
        f"# {card['name']}",
        f"A LLaVA of {card['parameters'] / 1e6:.2f} M parameters, trained from nothing on the "
        f"procedural world (version {card['world']}): pictures of 64 px, 64 visual tokens. It "
        "knows its closed vocabulary and nothing else; it exists so that token reduction can be "
        "tried and measured without a download.",
        f"- pictures seen: {pictures:,} (none twice, none of the test splits)\n"
        f"- steps: {recipe['warm_up_steps']} vision warm-up + {recipe['joint_steps']} joint, "
        f"up to {recipe['questions']} questions per picture\n"
        f"- time: {card['seconds'] / 60:.1f} minutes on {card['threads']} CPU threads, seed "
        f"{card['seed']}\n"
        "- visual tokens dropped in training: none",
    ]
    if "test" in card:
        parts += [
            "## Accuracy on the test split",
            _table(card["test"]),
            "Greedy decoding must give exactly the answer. Blind: the picture replaced by its mean "
            "colour. Constant: the best answer that never changes.",
        ]
    if "test-ood" in card:
        parts += [
            "## Accuracy on test-ood",
            _table(card["test-ood"]),
            "Unseen (shape, colour) pairs, unseen wordings, more objects, and for I9 words that "
            "were never written in training: a word-level answer to those cannot be expected.",
        ]
    parts += ["## Loss", _curve(card["history"])]
    parts.append("Made by `foveate train nano`; the numbers are in `card.json`.")
    return "\n\n".join(parts) + "\n"


def write_card(folder: Path, facts: dict, count: int, progress: bool = False) -> dict:
    """Measure the weights in ``folder`` and write ``card.json`` and ``README.md`` there."""
    model, _ = load_folder(folder)
    card = {**facts, "parameters": sum(p.numel() for p in model.parameters())}
    if count:
        card["test"] = measure(folder, count, "test", progress)
        card["test-ood"] = measure(folder, max(1, count // 2), "test-ood", progress)
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(markdown(card), encoding="utf-8")
    return card
