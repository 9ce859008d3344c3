"""I4: how many objects have a colour, or a shape. Needs every member, wherever it is."""

import numpy as np

from ..grammar import Sketch, background, choice, compose, find, pair, stray_word, target_pair
from ..scene import Canvas
from ..vocabulary import COLOURS, SHAPES
from .base import Question, Task, wording

COLOUR_SEEN = (
    "how many {} objects are there?",
    "how many {} things are there?",
    "how many objects are {}?",
    "count the {} objects.",
    "what is the number of {} objects?",
)
COLOUR_UNSEEN = ("give the number of {} things.", "how many {} objects can you see?")
SHAPE_SEEN = (
    "how many {} shapes are there?",
    "how many objects have the shape {}?",
    "count the {} shapes.",
    "what is the number of {} shapes?",
)
SHAPE_UNSEEN = ("give the number of {} shapes.", "how many {} shapes can you see?")


def most(canvas: Canvas) -> int:
    """Largest count: nine, or five where the grid is too coarse to tell nine apart."""
    return 9 if canvas.grid > 8 else 5


def _question(rng, split, scene, kind, value):
    if kind == "colour":
        text = wording(rng, split, COLOUR_SEEN, COLOUR_UNSEEN).format(value)
        members = find(scene, colour=value)
    else:
        text = wording(rng, split, SHAPE_SEEN, SHAPE_UNSEEN).format(value)
        members = find(scene, shape=value)
    candidates = tuple(str(n) for n in range(most(scene.canvas) + 1))
    boxes = tuple(o.box for o in members)
    return Question("I4", text, str(len(members)), candidates, boxes, {"kind": kind})


class Count(Task):
    id = "I4"
    title = "count"

    def draw(self, rng, canvas, split, index, level=1.0, words=0.3):
        top = most(canvas)
        count = index % (top + 1)
        kind = ("colour", "shape")[(index // (top + 1)) % 2]
        shape, colour = target_pair(rng, split)
        value = colour if kind == "colour" else shape
        least = max(count, 4 if level >= 0.5 else 2)
        total = int(rng.integers(least, max(least, top + 2 if top < 9 else 16) + 1))

        def belongs(s, c):
            return (c if kind == "colour" else s) == value

        names = [pair(rng, split, belongs) for _ in range(count)]
        # Few distinct others: duplicates among them keep "asked often" from meaning "asked about".
        rest = [pair(rng, split, lambda s, c: not belongs(s, c)) for _ in range(3)]
        names += [choice(rng, rest) for _ in range(total - count)]
        high = 1.75 if total <= 5 else 1.45
        sketches = [Sketch(s, c, canvas.patch * rng.uniform(1.1, high)) for s, c in names]
        ground = background(rng, level)
        texts = stray_word(rng, canvas, ground, split, words if total <= 5 else 0.0)
        scene = compose(rng, canvas, sketches, ground, texts)
        return scene, _question(rng, split, scene, kind, value)

    def ask(self, rng, scene, split):
        top = most(scene.canvas)
        groups: dict[int, list] = {}
        for kind, values in (("colour", COLOURS), ("shape", SHAPES)):
            for value in values:
                n = len(find(scene, **{kind: value}))
                if n <= top:
                    groups.setdefault(n, []).append((kind, value))
        # By group first: asked uniformly, nearly all answers would be zero or one.
        weights = np.cumsum([0.6 if n == 0 else 1.0 + 0.5 * n for n in groups])
        at = int(np.searchsorted(weights, rng.random() * weights[-1]))
        return _question(rng, split, scene, *choice(rng, list(groups.values())[at]))
