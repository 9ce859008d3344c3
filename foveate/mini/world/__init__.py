"""The procedural world: synthetic images with questions, answers and evidence boxes.

>>> from foveate.mini import world
>>> first = world.items("I1", "test", 1)[0]
>>> first.image().size
(64, 64)
"""

from foveate.errors import UnknownName, shown
from foveate.parameters import as_declared

from .choices import lettered
from .item import PICTURE, Item, Turn
from .keys import SPLITS, WORLD_VERSION, WorldError, generator
from .render import render
from .scene import Canvas, Scene
from .tasks import CATALOGUE, TASKS, Question, tasks

PATCH = 8


def item(
    task: str,
    split: str,
    index: int,
    size: int = 64,
    patch: int = PATCH,
    form: str = "word",
    **knobs,
) -> Item:
    """One item; equal arguments give the same item on every machine.

    Args:
        task: id of the task, such as "I1".
        split: "train", "val", "test" or "test-ood".
        index: of the item in its split.
        size: image side in pixels.
        patch: patch side in pixels.
        form: "word", or "letter" for four lettered options.
        knobs: difficulty parameters of the task, listed by `CATALOGUE[task].knobs()`.
    """
    index = as_declared("index", index, int)
    if not isinstance(task, str) or task not in CATALOGUE:
        raise UnknownName.of("task", task, CATALOGUE)
    if form not in ("word", "letter"):
        raise WorldError(f'form={shown(form)} is unknown: use "word" or "letter".')
    kind, canvas = CATALOGUE[task], _canvas(size, patch)
    if not kind.fits(canvas):
        low, high = kind.grids
        raise WorldError(
            f"{task} ({kind.title}) does not exist at {size} px with patches of {patch} px, which "
            f"make {canvas.grid} patches a side: use {low * patch} to {high * patch} px."
        )
    for name in knobs:
        if name not in kind.knobs():
            raise UnknownName.of(f"parameter of {task}", name, kind.knobs() or ["(none)"])
    place = task if (size, patch) == (64, 8) else f"{task}@{size}/{patch}"
    if knobs:
        place += "?" + "&".join(f"{name}={knobs[name]}" for name in sorted(knobs))
    drawn, asked = kind.draw(generator(split, place, index), canvas, split, index, **knobs)
    scenes: tuple[Scene, ...] = drawn if isinstance(drawn, tuple) else (drawn,)
    questions: tuple[Question, ...] = asked if isinstance(asked, tuple) else (asked,)
    first = questions[0]
    name = f"{WORLD_VERSION}/{split}/{place}/{index}"
    media = {"kind": "image", "key": name, "size": size, "patch": patch}
    count = len(scenes)
    if count > 1:
        media |= {"kind": "images", "frames": count}
    made = Item(
        id=name,
        split=split,
        task=task,
        index=index,
        question=first.text,
        answer=first.answer,
        candidates=first.candidates,
        options=(),
        evidence=first.evidence,
        media=media,
        scene=scenes[0],
        meta=first.meta,
        rivals=first.rivals,
        more=scenes[1:],
        frames=first.frames,
        content=first.content or (PICTURE,) * count,
        turns=tuple(_turn(q) for q in questions) if kind.medium == "dialogue" else (),
    )
    if form == "letter":
        return lettered(made, generator(split, place, index, "letter"))
    return made


def _canvas(size: int, patch: int) -> Canvas:
    size, patch = as_declared("size", size, int), as_declared("patch", patch, int)
    if patch < 1 or size % patch or size < 4 * patch:
        raise WorldError(
            f"size={size} does not fit patches of {patch} px: use a multiple, at least 4 patches."
        )
    return Canvas(size, patch)


def _turn(asked: Question) -> Turn:
    return Turn(
        question=asked.text,
        answer=asked.answer,
        candidates=asked.candidates,
        options=(),
        evidence=asked.evidence,
        rivals=asked.rivals,
        meta=asked.meta,
    )


def items(
    task: str,
    split: str,
    n: int,
    size: int = 64,
    start: int = 0,
    patch: int = PATCH,
    form: str = "word",
    **knobs,
) -> list[Item]:
    """``n`` consecutive items of a task and split from index ``start`` on; see `item`."""
    n, start = as_declared("n", n, int), as_declared("start", start, int)
    return [item(task, split, start + i, size, patch, form, **knobs) for i in range(n)]


__all__ = [
    "CATALOGUE",
    "PATCH",
    "PICTURE",
    "SPLITS",
    "TASKS",
    "WORLD_VERSION",
    "Canvas",
    "Item",
    "Scene",
    "Turn",
    "WorldError",
    "generator",
    "item",
    "items",
    "render",
    "tasks",
]
