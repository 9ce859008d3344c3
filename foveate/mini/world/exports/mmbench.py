"""A TSV file in the layout of MMBench: lettered options, the picture as base64 in the row.

With ``circular`` every item comes in all rotations of its options, the index raised by a million
each time: a model knows an answer when it is right in all of them. Scores on these files are of the
world, not of MMBench.
"""

import base64
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ..choices import LETTERS, lettered
from ..item import Item
from ..keys import WorldError, generator

COLUMNS = (
    *("index", "question", "hint", "A", "B", "C", "D", "answer"),
    *("category", "l2-category", "split", "image"),
)
ROTATION = 1_000_000
_INSTANCE = "finegrained_perception (instance-level)"
_CROSS = "finegrained_perception (cross-instance)"
# Where each task stands in MMBench's table of abilities.
CATEGORIES = {
    "I1": ("attribute_recognition", _INSTANCE),
    "I2": ("object_localization", _INSTANCE),
    "I3": ("spatial_relationship", _CROSS),
    "I4": ("object_localization", _INSTANCE),
    "I5": ("object_localization", _INSTANCE),
    "I6": ("attribute_recognition", _INSTANCE),
    "I7": ("attribute_recognition", _INSTANCE),
    "I8": ("attribute_comparison", _CROSS),
    "I9": ("ocr", _INSTANCE),
    "I10": ("ocr", _INSTANCE),
    "I11": ("ocr", _INSTANCE),
    "I12": ("structuralized_imagetext_understanding", "logic_reasoning"),
    "I13": ("image_scene", "coarse_perception"),
    "I14": ("attribute_comparison", _CROSS),
}
FILE = "world-mmbench-like.tsv"


def rotations(options: tuple[str, ...], gold: int) -> list[tuple[tuple[str, ...], int]]:
    """All cyclic shifts of the options, each with the place of the right one."""
    count = len(options)
    return [(options[k:] + options[:k], (gold - k) % count) for k in range(count)]


def rows(item: Item, index: int, circular: bool = False) -> list[dict[str, str]]:
    """The item as one row, or as one row per rotation."""
    if item.task not in CATEGORIES:
        raise WorldError(
            f"{item.task} is not one question about one picture, as an MMBench row is; "
            "export it as jsonl or lmms-eval."
        )
    letters = item
    if not item.options:
        letters = lettered(item, generator(item.split, item.id, item.index, "letter"))
    options, gold = letters.options, LETTERS.index(letters.answer)
    question = item.question
    if item.options:
        question = item.question[: item.question.index(" (A) ")]
    buffer = io.BytesIO()
    item.image().save(buffer, format="PNG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    category, coarse = CATEGORIES[item.task]
    turned = rotations(options, gold) if circular else [(options, gold)]
    return [
        {
            "index": str(index + turn * ROTATION),
            "question": question,
            "hint": "",
            **{letter: "" for letter in "ABCD"},
            **{LETTERS[i]: option for i, option in enumerate(shown)},
            "answer": LETTERS[right],
            "category": category,
            "l2-category": coarse,
            "split": item.split,
            "image": picture,
        }
        for turn, (shown, right) in enumerate(turned)
    ]


def write(items: Sequence[Item], folder: Path, circular: bool = False) -> list[Path]:
    """One TSV file with all items; rotations stand after each other, as their indices do."""
    made = [rows(item, index, circular) for index, item in enumerate(items)]
    table = [row for group in made for row in group]
    table.sort(key=lambda row: int(row["index"]))
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / FILE
    with target.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    return [target]
