"""The model card of a trained mini model: JSON for machines, Markdown for people."""

import json
from pathlib import Path

from foveate.methods.tokens.random import Random

from .evaluate import evaluate
from .weights_loading import load_folder
from .world import CATALOGUE, items

# A task is kept for measuring where the picture is worth that much.
SPAN = 0.3
KEEP = 0.125


def measure(
    folder: Path,
    tasks: list[str],
    count: int,
    split: str = "test",
    progress: bool = False,
    device="cpu",
) -> dict:
    """Accuracies of the saved weights by task, ``count`` items each.

    With all visual tokens (greedy, and by likelihood), with the picture replaced by its mean
    colour, with an eighth of the tokens: those of the evidence, or drawn at random (likelihood);
    and of the best constant answer.
    """
    from foveate import attach
    from foveate.benchmarks.controls import Oracle
    from foveate.benchmarks.evidence import COUNTING, EvidenceBoxes

    model, processor = load_folder(folder)
    model.to(device)
    size = model.config.vision_config.image_size
    table = {}
    for task in tasks:
        asked = items(task, split, count, size)

        def share(asked=asked, task=task, **how) -> float:
            return evaluate(model, processor, asked, progress=progress, **how).accuracy[task]

        full = evaluate(model, processor, asked, progress=progress)
        row = {
            "title": CATALOGUE[task].title,
            "items": count,
            "full": full.accuracy[task],
            "likelihood": share(mode="likelihood"),
            "blind": share(blind=True),
            "constant": full.constant[task],
        }
        light = EvidenceBoxes()
        oracle = Oracle(keep=KEEP, evidence=light, background=task in COUNTING)
        with attach(model, oracle):
            row["oracle"] = share(mode="likelihood", before=light.point)
        with attach(model, Random(keep=KEEP)):
            row["random"] = share(mode="likelihood")
        table[task] = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
    return table


def kept(table: dict) -> list[str]:
    """Tasks that are worth measuring with: full is that far above blind and constant answers."""
    return [
        task
        for task, row in table.items()
        if row["full"] - max(row["blind"], row["constant"]) >= SPAN
    ]


def _curve(history: list[dict], width: int = 12) -> str:
    rows = ["| step | seconds | alignment | answers |", "|---|---|---|---|"]
    stride = max(1, len(history) // width)
    for record in history[::-1][::stride][::-1]:
        cells = [record["step"], record["seconds"], record.get("alignment"), record.get("answers")]
        rows.append("| " + " | ".join("–" if c is None else f"{c:g}" for c in cells) + " |")
    return "\n".join(rows)


def _table(table: dict) -> str:
    columns = {
        "full": "full, greedy",
        "likelihood": "full, likelihood",
        "blind": "blind",
        "constant": "constant",
        "oracle": f"oracle {100 * KEEP:g} %",
        "random": f"random {100 * KEEP:g} %",
    }
    shown = {key: name for key, name in columns.items() if key in next(iter(table.values()))}
    rows = [
        f"| task | items | {' | '.join(shown.values())} |",
        "|---" * (len(shown) + 2) + "|",
    ]
    for task, row in table.items():
        cells = [f"{row[key]:.3f}" for key in shown]
        rows.append(f"| {task} {row['title']} | {row['items']} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _origin(card: dict) -> str:
    if card.get("origin"):
        return f"grown from {card['origin']} and trained on"
    return "trained from nothing on"


def _machine(card: dict) -> str:
    if card.get("device", "cpu") == "cpu":
        return f"{card['threads']} CPU threads"
    return f"one {card['device']}, pictures drawn by {card['threads']} processes"


def markdown(card: dict) -> str:
    """The card as a page."""
    recipe = card["recipe"]
    pictures = (
        recipe["warm_up_steps"] * recipe["warm_up_batch"]
        + recipe["joint_steps"] * recipe["joint_batch"]
    )
    parts = [
        f"# {card['name']}",
        f"A LLaVA of {card['parameters'] / 1e6:.2f} M parameters, {_origin(card)} the "
        f"procedural world (version {card['world']}): pictures of {card.get('size', 64)} px, "
        f"{card.get('tokens', 64)} visual tokens. It "
        "knows its closed vocabulary and nothing else; it exists so that token reduction can be "
        "tried and measured without a download.",
        f"- pictures seen: {pictures:,} (none twice, none of the test splits)\n"
        f"- steps: {recipe['warm_up_steps']} vision warm-up + {recipe['joint_steps']} joint, "
        f"up to {recipe['questions']} questions per picture\n"
        f"- time: {card['seconds'] / 60:.1f} minutes on {_machine(card)}, seed {card['seed']}\n"
        "- visual tokens dropped in training: none",
    ]
    if "test" in card:
        table = card["test"]
        known = card.get("kept", list(table))
        mean = sum(table[t]["full"] for t in known) / max(1, len(known))
        parts += [
            "## Accuracy on the test split",
            _table(table),
            "Greedy decoding must give exactly the answer. Blind: the picture replaced by its mean "
            "colour. Constant: the best answer that never changes. Oracle and random keep an "
            "eighth of the tokens.",
            f"Kept for measuring, {100 * mean:.1f} % right on average: {', '.join(known)}.",
        ]
        lost = [task for task in table if task not in known]
        if lost:
            parts.append(
                f"Not kept, for the picture is worth less than {100 * SPAN:g} points there: "
                f"{', '.join(lost)}."
            )
    if "test-ood" in card:
        parts += [
            "## Accuracy on test-ood",
            _table(card["test-ood"]),
            "Unseen (shape, colour) pairs, unseen wordings, more objects, and for I9 words that "
            "were never written in training: a word-level answer to those cannot be expected.",
        ]
    parts += ["## Loss", _curve(card["history"])]
    parts.append(f"Made by `foveate train {card['name']}`; the numbers are in `card.json`.")
    return "\n\n".join(parts) + "\n"


def write_card(
    folder: Path,
    facts: dict,
    tasks: list[str],
    count: int,
    progress: bool = False,
    device="cpu",
) -> dict:
    """Measure the weights in ``folder`` and write ``card.json`` and ``README.md`` there.

    ``facts`` says what the training was and ran on; the measuring runs on ``device``.
    """
    model, _ = load_folder(folder)
    config = model.config
    card = {
        **facts,
        "parameters": sum(p.numel() for p in model.parameters()),
        "size": config.vision_config.image_size,
        "tokens": config.image_seq_length,
    }
    if count:
        card["test"] = measure(folder, tasks, count, "test", progress, device)
        card["kept"] = kept(card["test"])
        half = max(1, count // 2)
        card["test-ood"] = measure(folder, tasks, half, "test-ood", progress, device)
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(markdown(card), encoding="utf-8")
    return card
