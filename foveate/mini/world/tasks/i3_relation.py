"""I3: how two objects lie to each other, or what lies on one side. Needs both referents."""

from dataclasses import replace

from ..grammar import (
    background,
    choice,
    clear_sketch,
    compose,
    crowd,
    find,
    pair,
    stray_word,
    target_pair,
)
from ..keys import WorldError
from ..shapes import THIN
from ..vocabulary import SHAPES
from .base import Question, Task, between, span, wording

SIDES = ("left", "right", "above", "below")
PHRASES = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
CHECK_SEEN = (
    "is the {} {} the {}?",
    "can you see the {} {} the {}?",
    "does the {} lie {} the {}?",
    "tell me, is the {} {} the {}?",
)
CHECK_UNSEEN = ("do you find the {} {} the {}?", "is the {} located {} the {}?")
WHICH_SEEN = (
    "what shape is {} the {}?",
    "which shape is {} the {}?",
    "what is the shape {} the {}?",
    "name the shape {} the {}.",
    "tell me which shape is {} the {}.",
)
WHICH_UNSEEN = ("give the shape {} the {}.", "which shape can you see {} the {}?")


def ahead(side: str, a, b) -> float:
    """How many pixels the centre of ``a`` is farther to that side than the centre of ``b``."""
    return {"left": b.x - a.x, "right": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}[side]


def neighbours(objects, patch: int, margin: float) -> list[tuple[str, int, int]]:
    """(side, i, j) where only object i lies on that side of j, by ``margin`` patches.

    Whatever else there is lies at least half the margin on the other side, so that nobody has to
    measure.
    """
    found = []
    for side in SIDES:
        order = sorted(range(len(objects)), key=lambda k: ahead(side, objects[k], objects[0]))
        *rest, second, first = order
        clear = ahead(side, objects[first], objects[second]) >= margin * patch
        if clear and all(
            ahead(side, objects[second], objects[k]) >= margin * patch / 2 for k in rest
        ):
            found.append((side, first, second))
    return found


def _name(o) -> str:
    return f"{o.colour} {o.shape}"


def _check(rng, split, side, a, b, truth):
    text = wording(rng, split, CHECK_SEEN, CHECK_UNSEEN).format(_name(a), PHRASES[side], _name(b))
    boxes = (a.box, b.box)
    return Question("I3", text, truth, ("yes", "no"), boxes, {"kind": "check", "side": side})


def _which(rng, split, side, target, anchor):
    text = wording(rng, split, WHICH_SEEN, WHICH_UNSEEN).format(PHRASES[side], _name(anchor))
    boxes = (target.box, anchor.box)
    return Question("I3", text, target.shape, SHAPES, boxes, {"kind": "which", "side": side})


def _renamed(o, shape, colour):
    solid = shape in THIN or shape == "circle"
    texture = "plain" if solid and o.texture == "hollow" else o.texture
    return replace(o, shape=shape, colour=colour, texture=texture)


class Relation(Task):
    id = "I3"
    title = "relation"
    grids = (8, 64)

    def draw(self, rng, canvas, split, index, level=1.0, words=0.3, *, margin=1.5, count=(4, 10)):
        between("margin", margin, 0.5, 4)
        span("count", count, 3, 16)
        low, high = crowd(canvas, *count)
        which, value = index % 2, index // 2
        for attempt in range(1000):
            k = int(rng.integers(3 if level < 0.3 else low, low + round(level * (high - low)) + 1))
            k = max(3, k - attempt // 20)  # in a crowd few objects stand apart
            sketches = [clear_sketch(rng, canvas, *pair(rng, split), level) for _ in range(k)]
            ground = background(rng, level)
            scene = compose(rng, canvas, sketches, ground, ())
            if which:
                options = neighbours(scene.objects, canvas.patch, margin)
            else:
                side = SIDES[(value // 2) % 4]
                options = [
                    (side, i, j)
                    for i in range(k)
                    for j in range(k)
                    if ahead(side, scene.objects[i], scene.objects[j]) >= margin * canvas.patch
                ]
            if options:
                break
        else:
            raise WorldError(f"margin={margin} is too large for pictures of {canvas.size} px.")
        side, first, second = choice(rng, options)
        objects = list(scene.objects)
        anchor = target_pair(rng, split)
        if which:
            shape = SHAPES[value % len(SHAPES)]
            names = [pair(rng, split, lambda s, c: s == shape and (s, c) != anchor), anchor]
        else:
            names = [pair(rng, split, lambda s, c: (s, c) != anchor), anchor]
        objects[first] = _renamed(objects[first], *names[0])
        objects[second] = _renamed(objects[second], *names[1])
        for i, o in enumerate(objects):
            if i not in (first, second) and (o.shape, o.colour) in names:
                objects[i] = _renamed(o, *pair(rng, split, lambda s, c: (s, c) not in names))
        taken = tuple(o.box for o in objects)
        texts = stray_word(rng, canvas, ground, split, words, taken)
        scene = replace(scene, objects=tuple(objects), texts=texts)
        target, other = objects[first], objects[second]
        if which:
            return scene, _which(rng, split, side, target, other)
        if value % 2:
            return scene, _check(rng, split, side, target, other, "yes")
        return scene, _check(rng, split, side, other, target, "no")

    def ask(self, rng, scene, split):
        patch, objects = scene.canvas.patch, scene.objects
        single = [o for o in objects if len(find(scene, o.shape, o.colour)) == 1]
        if rng.random() < 0.5 and len(objects) >= 3:
            options = [
                (side, objects[i], objects[j])
                for side, i, j in neighbours(objects, patch, 1.5)
                if objects[j] in single
            ]
            return _which(rng, split, *choice(rng, options)) if options else None
        side = choice(rng, SIDES)
        options = [(a, b) for a in single for b in single if ahead(side, a, b) >= 1.5 * patch]
        if not options:
            return None
        a, b = choice(rng, options)
        if rng.random() < 0.5:
            return _check(rng, split, side, a, b, "yes")
        return _check(rng, split, side, b, a, "no")
