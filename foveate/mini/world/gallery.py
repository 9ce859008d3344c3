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
# The world

The embedded models learn from, and are measured on, pictures that are drawn by code: nothing is
downloaded, every item has a name, and the name alone decides what is on the picture.

```python
from foveate.mini import world

item = world.item("I10", "test", 4, size=112)
item.image(), item.question, item.answer, item.evidence
```

`evidence` holds the boxes without which the question cannot be answered, so one can measure whether
a method keeps them. `world.tasks(112)` lists the tasks that exist for a size; their sizes are given
in patches per side (64 px with patches of 8 px make 8). Each task has knobs, given as arguments:
`world.item("I14", "test", 0, size=112, ratio=(1.1, 1.2))`.

| split | items per task | differs by |
|---|---|---|
| train | endless | |
| val, test | 200, 1,000 | other pictures |
| test-ood | 500 | combinations and wordings that training never shows, more objects |

Files for other programs:

```bash
foveate world --image --out world-files --task I3 --task I10 --size 112 --n 100
foveate world --image --out world-tsv --export mmbench --circular
foveate world --image --out world-tasks --export lmms-eval
```

`jsonl` writes one file of JSON lines per task, pictures as PNG beside it; `mmbench` a TSV file in
the layout of MMBench, with `--circular` in all rotations of the options; `lmms-eval` task files for
`lmms_eval --include_path world-tasks --tasks world`. Scores on them are scores of the world, not of
the benchmarks whose layout they have.
"""

PURPOSES = {
    "I1": "The floor: what every method should keep.",
    "I2": "Fails when positions are lost in pruning.",
    "I3": "Needs both objects that are named, wherever they lie.",
    "I4": "Needs every member of a group: coverage, and sizes of merged tokens.",
    "I5": "Shows a bias towards yes or no after heavy pruning.",
    "I6": "The target is smaller than a patch, the distractors are large: early merging loses it.",
    "I7": "The target hardly differs from the background: what is salient is not what is asked.",
    "I8": "Many copies of one object draw all attention; only one thing is different.",
    "I9": "Neighbouring tokens are needed together.",
    "I10": "Two hops: find the object, then read the number beside it.",
    "I11": "Everything on the page may be asked: selection loses, compression must be good.",
    "I12": "Thin structures that must be measured against an axis.",
    "I13": "One or two tokens are enough: shows who keeps too much detail.",
    "I14": "Two objects of one shape that are far from each other: merging destroys extent.",
    "I15": "A budget for each picture, or one for all?",
    "I16": "The rule is new in every item; the last picture needs more tokens than the examples.",
    "I17": "What the first question leaves out, a later one needs.",
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
        f"{said}\n\n`{shown.id}`, {low} to {high} patches per side, knobs: {knobs}\n"
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
