"""I1: colour or shape of an object that is the only one of its kind."""

from ..grammar import (
    background,
    choice,
    compose,
    crowd,
    find,
    pair,
    sketch,
    stray_word,
    target_pair,
)
from ..keys import pairs
from ..vocabulary import COLOURS, SHAPES
from .base import Question, Task, wording

COLOUR_SEEN = (
    "what colour is the {}?",
    "which colour is the {}?",
    "what is the colour of the {}?",
    "name the colour of the {}.",
    "tell me the colour of the {}.",
    "the {} has which colour?",
)
COLOUR_UNSEEN = ("give the colour of the {}.", "which colour does the {} have?")
SHAPE_SEEN = (
    "what shape is the {} object?",
    "which shape is {}?",
    "what is the shape of the {} thing?",
    "name the shape of the {} object.",
    "tell me the shape of the {} thing.",
    "the {} object has which shape?",
)
SHAPE_UNSEEN = ("give the shape of the {} object.", "which shape does the {} thing have?")


def _question(rng, split, target, kind):
    if kind == "colour":
        text = wording(rng, split, COLOUR_SEEN, COLOUR_UNSEEN).format(target.shape)
        answer, candidates = target.colour, COLOURS
    else:
        text = wording(rng, split, SHAPE_SEEN, SHAPE_UNSEEN).format(target.colour)
        answer, candidates = target.shape, SHAPES
    return Question("I1", text, answer, candidates, (target.box,), {"kind": kind})


class Attribute(Task):
    id = "I1"
    title = "attribute"

    def draw(self, rng, canvas, split, index, level=1.0, words=0.3):
        kind = ("colour", "shape")[index % 2]
        value = index // 2
        if kind == "colour":
            colour = COLOURS[value % len(COLOURS)]
            shape, _ = target_pair(rng, split, lambda s, c: c == colour)
        else:
            shape = SHAPES[value % len(SHAPES)]
            _, colour = target_pair(rng, split, lambda s, c: s == shape)
        low, high = crowd(canvas, 3, 8 if split != "test-ood" else 10)
        count = int(rng.integers(2 if level < 0.3 else low, low + round(level * (high - low)) + 1))
        sketches = [sketch(rng, canvas, shape, colour, level)]
        for _ in range(count - 1):
            other = pair(rng, split, lambda s, c: s != shape if kind == "colour" else c != colour)
            sketches.append(sketch(rng, canvas, *other, level))
        ground = background(rng, level)
        texts = stray_word(rng, canvas, ground, split, words)
        scene = compose(rng, canvas, sketches, ground, texts)
        target = find(scene, shape, colour)[0]
        return scene, _question(rng, split, target, kind)

    def ask(self, rng, scene, split):
        options = [
            (target, kind)
            for target in scene.objects
            if (target.shape, target.colour) in pairs(split)
            for kind, same in (
                ("colour", find(scene, shape=target.shape)),
                ("shape", find(scene, colour=target.colour)),
            )
            if len(same) == 1
        ]
        return _question(rng, split, *choice(rng, options)) if options else None
