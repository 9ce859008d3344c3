"""The page that shows one item of every task: ``python -m foveate.mini.world.gallery docs``.

Writes ``docs/world.md`` and the pictures that it shows to ``docs/world``.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from . import CATALOGUE, Item, item

SIDE = 384  # pixels of a single picture on the page
STRIP = 180  # of one of several
SPLIT = "test"
SHOWN = {
    "I1": 1,
    "I3": 1,
    "I4": 3,
    "I6": 1,
    "I10": 4,
    "I11": 1,
    "I12": 1,
    "I15": 4,
    "I16": 0,
    "I17": 2,
}

INTRODUCTION = """\
# Synthetic tasks

The embedded models are trained and measured on images that are drawn by code, without a download.
Every item has an id, and equal ids always give the same image, question and answer.

```python
from foveate.mini import world

item = world.item("I10", "test", 4, size=112)
item.image(), item.question, item.answer, item.evidence
```

- `evidence`: the image boxes without which the question cannot be answered. With them one can
  measure whether a method keeps the visual tokens that matter.
- `world.tasks(112)`: the tasks that exist for images of 112 px. Below, their sizes are in patches
  per side (64 px with patches of 8 px are 8 patches).
- Options of a task are keyword arguments:
  `world.item("I14", "test", 0, size=112, ratio=(1.1, 1.2))`.

| split | items per task | content |
|---|--:|---|
| train | unlimited | |
| val | 200 | other images than train |
| test | 1,000 | other images than train and val |
| test-ood | 500 | out of distribution: new combinations and wordings, more objects |

## Export to other tools

```bash
foveate world --image --out world-files --task I3 --task I10 --size 112 --n 100
foveate world --image --out world-tsv --export mmbench --circular
foveate world --image --out world-tasks --export lmms-eval
```

| `--export` | files |
|---|---|
| `jsonl` (default) | one JSONL file per task, images as PNG |
| `mmbench` | one TSV file in the layout of MMBench; `--circular`: every rotation of the options |
| `lmms-eval` | task files for `lmms_eval --include_path world-tasks --tasks world` |

Scores on these files are scores on the synthetic tasks. They cannot be compared with scores on
MMBench or other benchmarks.
"""

PURPOSES = {
    "I1": "The easiest task: every method should keep its accuracy here.",
    "I2": "Tests positions: fails if pruning changes the position ids too much.",
    "I3": "Tests relations: the tokens of both named objects must be kept.",
    "I4": "Tests coverage: every object of a group must be kept, and merged tokens must not change "
    "the count.",
    "I5": "Tests the bias to answer yes or no after heavy pruning.",
    "I6": "Tests small objects: the target is smaller than a patch and the distractors are large. "
    "Early merging loses it.",
    "I7": "Tests low contrast: the target has almost the colour of the background, so saliency "
    "scores miss it.",
    "I8": "Tests redundancy: many copies of one object and one different object.",
    "I9": "Tests text: neighbouring tokens are needed together.",
    "I10": "Tests two steps: find the object, then read the number beside it.",
    "I11": "Tests dense documents: any word can be the answer, so every token matters.",
    "I12": "Tests charts: thin structures are compared with an axis.",
    "I13": "Tests global content: one or two tokens are enough.",
    "I14": "Tests sizes: two objects of one shape are far apart; merging must keep their extent.",
    "I15": "Tests several images: one budget per image or one budget for all images.",
    "I16": "Tests in-context learning: each item has a new rule, and the last image needs more "
    "tokens than the examples.",
    "I17": "Tests several turns: tokens that the first question does not need are needed later.",
}


def chosen(task: str) -> Item:
    """The item that stands for a task."""
    kind = CATALOGUE[task]
    size = 64 if kind.medium == "images" else max(112, kind.grids[0] * 8)
    return item(task, SPLIT, SHOWN.get(task, 0), size=size)


def picture(shown: Item) -> Image.Image:
    """Its pictures enlarged without smoothing, side by side with their words when several."""
    images = shown.images()
    if len(images) == 1:
        return images[0].resize((SIDE, SIDE), Image.Resampling.NEAREST)
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (STRIP + 8), rows * (STRIP + 22)), "white")
    draw = ImageDraw.Draw(sheet)
    labels = [part for part in shown.content if part != "<image>"]
    labels += ["?"] * (len(images) - len(labels))
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = k % columns * (STRIP + 8), k // columns * (STRIP + 22)
        sheet.paste(image.resize((STRIP, STRIP), Image.Resampling.NEAREST), (x, y))
        draw.text((x + 4, y + STRIP + 4), label, fill="black")
    return sheet


def section(task: str) -> str:
    """What the page says about a task."""
    kind, shown = CATALOGUE[task], chosen(task)
    low, high = kind.grids
    knobs = ", ".join(f"`{name}={value}`" for name, value in kind.knobs().items()) or "none"
    turns = [f"{turn.question} **{turn.answer}**" for turn in shown.turns or (shown,)]
    said = "\n".join(f"{k + 1}. {turn}" for k, turn in enumerate(turns))
    if len(turns) == 1:
        said = turns[0]
    return (
        f"## {task} {kind.title}\n\n{PURPOSES[task]}\n\n![{task}](world/{task.lower()}.png)\n\n"
        f"{said}\n\nItem `{shown.id}`, {low} to {high} patches per side, options: {knobs}\n"
    )


def write(folder: Path) -> None:
    """The page and its pictures."""
    (folder / "world").mkdir(parents=True, exist_ok=True)
    for task in CATALOGUE:
        picture(chosen(task)).save(folder / "world" / f"{task.lower()}.png", optimize=True)
    parts = [INTRODUCTION, *(section(task) for task in CATALOGUE)]
    (folder / "world.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
