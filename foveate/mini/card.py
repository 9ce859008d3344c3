"""The model card of an embedded model: `card.json` and the page `README.md`."""

import json
from pathlib import Path

from foveate.methods.tokens.random import Random

from .evaluate import evaluate
from .weights_loading import load_folder
from .world import CATALOGUE, items

# A task is used in benches if the image adds at least this much accuracy.
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
    """Accuracies of saved weights by task.

    With all visual tokens (greedy, and by likelihood), with constant-colour images, with the best
    constant answer, and with an eighth of the tokens: those of the evidence, or random ones.

    Args:
        folder: holds the weights.
        tasks: ids of the tasks.
        count: items per task.
        split: "test" or "test-ood".
        progress: show a progress bar.
        device: for the model.
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
            "blind": share(no_image=True),
            "constant": full.constant[task],
        }
        light = EvidenceBoxes()
        oracle = Oracle(keep=KEEP, evidence=light, background=task in COUNTING)
        with attach(model, oracle):
            row["oracle"] = share(mode="likelihood", before=light.set_items)
        with attach(model, Random(keep=KEEP)):
            row["random"] = share(mode="likelihood")
        table[task] = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
    return table


def kept(table: dict) -> list[str]:
    """Tasks for the benches: the full model is at least SPAN above the no-image baseline."""
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
        "blind": "constant-colour image",
        "constant": "best constant answer",
        "oracle": f"evidence tokens, {100 * KEEP:g} %",
        "random": f"random tokens, {100 * KEEP:g} %",
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


def legend(table: dict) -> list[str]:
    """One line per column of an accuracy table that needs one."""
    lines = ["- full, greedy: the greedily decoded text must equal the answer."]
    lines.append("- full, likelihood: the answer is the candidate with the highest likelihood.")
    lines.append("- constant-colour image: the image is replaced by its mean colour.")
    lines.append("- best constant answer: the same answer to every question.")
    lines.append("- no-image baseline: the better of these two.")
    if "oracle" in next(iter(table.values())):
        lines.append(
            f"- evidence tokens, random tokens: {100 * KEEP:g} % of the visual tokens are kept, "
            "those that show the evidence or random ones."
        )
    return lines


def _origin(card: dict) -> str:
    if card.get("origin"):
        return f"initialised from {card['origin']} and trained on"
    return "trained from scratch on"


def _machine(card: dict) -> str:
    if card.get("device", "cpu") == "cpu":
        return f"{card['threads']} CPU threads"
    return f"one {card['device']}, images drawn by {card['threads']} processes"


def markdown(card: dict) -> str:
    """The card as a page."""
    recipe = card["recipe"]
    pictures = (
        recipe["warm_up_steps"] * recipe["warm_up_batch"]
        + recipe["joint_steps"] * recipe["joint_batch"]
    )
    parts = [
        f"# {card['name']}",
        f"A LLaVA with {card['parameters'] / 1e6:.2f} M parameters, {_origin(card)} the procedural "
        f"world (version {card['world']}). Images of {card.get('size', 64)} px become "
        f"{card.get('tokens', 64)} visual tokens. The model knows only the words of this world. It "
        "lets you try and measure token reduction without a download.",
        f"- training images: {pictures:,}, each used once, none from the test splits\n"
        f"- training steps: {recipe['warm_up_steps']} of vision warm-up, then "
        f"{recipe['joint_steps']} of joint training with up to {recipe['questions']} questions per "
        "image\n"
        f"- training time: {card['seconds'] / 60:.1f} minutes on {_machine(card)}\n"
        f"- seed: {card['seed']}\n"
        "- visual tokens dropped in training: none",
    ]
    if "test" in card:
        table = card["test"]
        known = card.get("kept", list(table))
        mean = sum(table[t]["full"] for t in known) / max(1, len(known))
        parts += [
            "## Accuracy on the test split",
            _table(table),
            "\n".join(legend(table)),
            f"Tasks used in benches, mean accuracy {100 * mean:.1f} %: {', '.join(known)}.",
        ]
        lost = [task for task in table if task not in known]
        if lost:
            parts.append(
                "Tasks not used, because the full model is less than "
                f"{100 * SPAN:g} points above the no-image baseline: {', '.join(lost)}."
            )
    if "test-ood" in card:
        parts += [
            "## Accuracy on test-ood",
            _table(card["test-ood"]),
            "This split has new (shape, colour) pairs, new wordings and more objects. I9 has words "
            "that never occur in training, so a model with word-level answers cannot read them.",
        ]
    parts += ["## Training loss", _curve(card["history"])]
    parts.append(
        f"Reproduce with `foveate train {card['name']} --seed {card['seed']}`. All numbers are in "
        "`card.json`."
    )
    return "\n\n".join(parts) + "\n"


def write_card(
    folder: Path,
    facts: dict,
    tasks: list[str],
    count: int,
    progress: bool = False,
    device="cpu",
) -> dict:
    """Evaluate the weights in a folder and write ``card.json`` and ``README.md`` there.

    Args:
        folder: holds the weights.
        facts: about the training, for the card.
        tasks: ids of the tasks to evaluate.
        count: test items per task, half as many of test-ood; 0 for none.
        progress: show a progress bar.
        device: for the evaluation.
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
