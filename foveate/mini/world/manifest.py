"""SHA-256 of a few items per task and split, so that the world cannot change unnoticed.

``python -m foveate.mini.world.manifest`` rewrites ``manifest.json``; do that only together with a
new `WORLD_VERSION`, since results on different pictures cannot be compared.
"""

import hashlib
import json
from importlib.resources import files
from pathlib import Path

from . import SPLITS, TASKS, Item, items

PER_SPLIT = 3
SIZES = {"64/8": (64, 8), "192/8": (192, 8)}


def fingerprint(item: Item) -> str:
    """SHA-256 over the picture's bytes and the item as JSON."""
    digest = hashlib.sha256(item.pixels().numpy().tobytes())
    digest.update(json.dumps(item.to_dict(), sort_keys=True).encode())
    return digest.hexdigest()


def measured() -> dict[str, list[str]]:
    """Fingerprints of the first items of each task, split and canvas."""
    return {
        f"{task}/{split}/{name}": [
            fingerprint(item) for item in items(task, split, PER_SPLIT, size=size, patch=patch)
        ]
        for task in TASKS
        for split in SPLITS
        for name, (size, patch) in SIZES.items()
    }


def stored() -> dict[str, list[str]]:
    """The fingerprints in the package."""
    return json.loads((files(__package__) / "manifest.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    target = Path(__file__).with_name("manifest.json")
    target.write_text(json.dumps(measured(), indent=1) + "\n", encoding="utf-8")
