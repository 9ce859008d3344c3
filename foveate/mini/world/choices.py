"""The multiple-choice form of an item: lettered options, the answer is a letter."""

from dataclasses import replace

import numpy as np

from .item import Item, Turn

LETTERS = "ABCDEF"


def lettered(item: Item, rng: np.random.Generator, count: int = 4) -> Item:
    """The same item with ``count`` options; the position of the correct one rotates by index."""
    turns = [_lettered(turn, item.index + k, rng, count) for k, turn in enumerate(item.turns)]
    made = {} if turns else _lettered(item, item.index, rng, count)
    if turns:
        made = {name: turns[0][name] for name in ("question", "answer", "candidates", "options")}
        made["meta"] = {**item.meta, "answer_text": item.answer}
        pairs = zip(item.turns, turns, strict=True)
        made["turns"] = tuple(replace(turn, **changes) for turn, changes in pairs)
    return replace(item, id=f"{item.id}/letter", **made)


def _lettered(asked: Item | Turn, place: int, rng: np.random.Generator, count: int) -> dict:
    """The changed fields of a question."""
    count = min(count, len(asked.candidates))
    wrong = [c for c in asked.candidates if c != asked.answer]
    options = [wrong[i] for i in rng.permutation(len(wrong))]
    # A wrong option that is nowhere on the picture would give the right one away.
    near = [option for option in options if option in asked.rivals]
    options = (near + [option for option in options if option not in near])[: count - 1]
    gold = place % count
    options.insert(gold, asked.answer)
    lines = " ".join(f"({LETTERS[i]}) {option}" for i, option in enumerate(options))
    return {
        "question": f"{asked.question} {lines}",
        "answer": LETTERS[gold],
        "candidates": tuple(LETTERS[:count]),
        "options": tuple(options),
        "meta": {**asked.meta, "answer_text": asked.answer},
    }
