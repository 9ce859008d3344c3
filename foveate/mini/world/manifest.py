"""SHA-256 of some items per task and split, to detect changes of the world.

``python -m foveate.mini.world.manifest`` adds new tasks to ``manifest.json`` and keeps the rest. A
changed item needs a new `WORLD_VERSION` and an empty table, because results on different images
cannot be compared.
"""

import hashlib
import json
from importlib.resources import files
from pathlib import Path

from . import SPLITS, TASKS, Item, items, render, tasks

PER_SPLIT = 3
SIZES = {"64/8": (64, 8), "192/8": (192, 8)}
LARGER = ((112, 8), (192, 8))


def fingerprint(item: Item) -> str:
    """SHA-256 over the bytes of all pictures and the item as JSON."""
    digest = hashlib.sha256(render(list(item.scenes))[0].numpy().tobytes())
    digest.update(json.dumps(item.to_dict(), sort_keys=True).encode())
    return digest.hexdigest()


def places() -> list[tuple[str, int, int]]:
    """(task, size, patch): core tasks at their sizes, others at the smallest size that fits."""
    core = [(task, *canvas) for task in TASKS for canvas in SIZES.values()]
    first = {}
    for size, patch in LARGER:
        for task in tasks(size, patch):
            first.setdefault(task, (task, size, patch))
    return core + list(first.values())


def measured() -> dict[str, list[str]]:
    """Fingerprints of the first items of each task, split and canvas."""
    return {
        f"{task}/{split}/{size}/{patch}": [
            fingerprint(item) for item in items(task, split, PER_SPLIT, size=size, patch=patch)
        ]
        for task, size, patch in places()
        for split in SPLITS
    }


def stored() -> dict[str, list[str]]:
    """The fingerprints in the package."""
    return json.loads((files(__package__) / "manifest.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    target = Path(__file__).with_name("manifest.json")
    known = stored()
    known |= {name: hashes for name, hashes in measured().items() if name not in known}
    target.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
