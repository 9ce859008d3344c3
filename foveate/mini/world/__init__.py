"""The procedural world: pictures, questions, answers and the places that show them.

>>> from foveate.mini import world
>>> first = world.items("I1", "test", 1)[0]
>>> first.image().size
(64, 64)
"""

from foveate.errors import UnknownName

from .choices import lettered
from .item import Item
from .keys import SPLITS, WORLD_VERSION, WorldError, generator
from .render import render
from .scene import Canvas, Scene
from .tasks import TASKS

PATCH = 8


def item(
    task: str, split: str, index: int, size: int = 64, patch: int = PATCH, form: str = "word"
) -> Item:
    """The item of that name; ``form`` is "word" or "letter" (four lettered options)."""
    if task not in TASKS:
        raise UnknownName.of("task", task, TASKS)
    if form not in ("word", "letter"):
        raise WorldError(f'unknown answer form {form!r}: use "word" or "letter".')
    if size % patch or size < 4 * patch:
        raise WorldError(
            f"canvas of {size} px does not fit patches of {patch} px: use a multiple, 4 at least."
        )
    canvas = Canvas(size, patch)
    place = task if (size, patch) == (64, 8) else f"{task}@{size}/{patch}"
    scene, question = TASKS[task].draw(generator(split, place, index), canvas, split, index)
    name = f"{WORLD_VERSION}/{split}/{place}/{index}"
    made = Item(
        id=name,
        split=split,
        task=task,
        index=index,
        question=question.text,
        answer=question.answer,
        candidates=question.candidates,
        options=(),
        evidence=question.evidence,
        media={"kind": "image", "key": name, "size": size, "patch": patch},
        scene=scene,
        meta=question.meta,
    )
    if form == "letter":
        return lettered(made, generator(split, place, index, "letter"))
    return made


def items(
    task: str,
    split: str,
    n: int,
    size: int = 64,
    start: int = 0,
    patch: int = PATCH,
    form: str = "word",
) -> list[Item]:
    """``n`` consecutive items of a task and split, beginning with index ``start``."""
    return [item(task, split, start + i, size, patch, form) for i in range(n)]


__all__ = [
    "PATCH",
    "SPLITS",
    "TASKS",
    "WORLD_VERSION",
    "Canvas",
    "Item",
    "Scene",
    "WorldError",
    "generator",
    "item",
    "items",
    "render",
]
