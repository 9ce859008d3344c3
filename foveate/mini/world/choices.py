"""The multiple-choice form of an item: lettered options, the answer is a letter."""

from dataclasses import replace

import numpy as np

from .item import Item

LETTERS = "ABCDEF"


def lettered(item: Item, rng: np.random.Generator, count: int = 4) -> Item:
    """The same item with ``count`` options; the right one's place goes round with the index."""
    count = min(count, len(item.candidates))
    wrong = [c for c in item.candidates if c != item.answer]
    options = [wrong[i] for i in rng.permutation(len(wrong))[: count - 1]]
    gold = item.index % count
    options.insert(gold, item.answer)
    lines = " ".join(f"({LETTERS[i]}) {option}" for i, option in enumerate(options))
    return replace(
        item,
        id=f"{item.id}/letter",
        question=f"{item.question} {lines}",
        answer=LETTERS[gold],
        candidates=tuple(LETTERS[:count]),
        options=tuple(options),
        meta={**item.meta, "answer_text": item.answer},
    )
