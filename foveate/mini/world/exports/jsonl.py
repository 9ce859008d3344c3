"""One JSONL file per task, one item per line, pictures as PNG beside them.

The fields are the same for pictures, videos and streams; those that a picture does not have are
null.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from ..item import Item
from .pictures import save

TIMELESS = {"level": None, "group": None, "t_ask": None, "duration": None}


def row(item: Item, images: list[str]) -> dict:
    """The item as JSON types; ``images`` are the paths of its pictures, in order."""
    made = item.to_dict()
    paths = iter(images)
    for message in made["messages"]:
        for part in message["content"]:
            if part["type"] == "image":
                part["path"] = next(paths)
    made["media"] = {**made["media"], "frames": len(images), "fps": None, "files": images}
    made["answer_text"] = item.meta.get("answer_text", item.answer)
    return made | TIMELESS


def by_task(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Items in groups of one task, in their order."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.task, []).append(item)
    return groups


def write(items: Sequence[Item], folder: Path) -> list[Path]:
    """``TASK.jsonl`` for each task."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for task, group in by_task(items).items():
        target = folder / f"{task}.jsonl"
        with target.open("w", encoding="utf-8") as lines:
            for item in group:
                lines.write(json.dumps(row(item, save(item, folder))) + "\n")
        written.append(target)
    return written
