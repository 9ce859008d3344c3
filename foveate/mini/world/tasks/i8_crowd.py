"""I8: the one object among many copies of another. Attention spends its budget on the copies."""

from ..grammar import Sketch, compose, find, pair, target_pair, visible_ground
from ..vocabulary import COLOURS, SHAPES
from .base import Question, Task, span, wording

COLOUR_SEEN = (
    "what colour is the only {}?",
    "which colour is the only {}?",
    "what is the colour of the only {}?",
    "name the colour of the only {}.",
    "tell me the colour of the one {}.",
)
COLOUR_UNSEEN = ("give the colour of the only {}.", "which colour does the only {} have?")
SHAPE_SEEN = (
    "what shape is the only {} object?",
    "which shape is the only {} thing?",
    "what is the shape of the only {} object?",
    "name the shape of the only {} object.",
    "tell me the shape of the one {} thing.",
)
SHAPE_UNSEEN = ("give the shape of the only {} object.", "which shape does the only {} thing have?")


class Crowd(Task):
    id = "I8"
    title = "duplicate crowd"
    grids = (14, 64)

    def draw(self, rng, canvas, split, index, level=1.0, words=0.3, *, copies=(20, 40)):
        least, most = span("copies", copies, 2, 80)
        room = canvas.grid**2 // 6
        least, most = min(least, room), min(most, room)
        kind, value = ("colour", "shape")[index % 2], index // 2
        if kind == "colour":
            colour = COLOURS[value % len(COLOURS)]
            shape, _ = target_pair(rng, split, lambda s, c: c == colour)
            crowd = pair(rng, split, lambda s, c: s != shape)
        else:
            shape = SHAPES[value % len(SHAPES)]
            _, colour = target_pair(rng, split, lambda s, c: s == shape)
            crowd = pair(rng, split, lambda s, c: c != colour and s != shape)
        number = int(rng.integers(least, most + 1))
        if level < 1:
            number = max(3, round(number * (0.3 + 0.7 * level)))
        side = canvas.patch * rng.uniform(1.3, 1.6)
        odd = Sketch(shape, colour, side)
        ground = visible_ground(rng, [colour, crowd[1]], level)
        scene = compose(rng, canvas, [odd] + [Sketch(*crowd, side)] * number, ground)
        if kind == "colour":
            text = wording(rng, split, COLOUR_SEEN, COLOUR_UNSEEN).format(shape)
            answer, candidates, rivals = colour, COLOURS, tuple({crowd[1]} - {colour})
        else:
            text = wording(rng, split, SHAPE_SEEN, SHAPE_UNSEEN).format(colour)
            answer, candidates, rivals = shape, SHAPES, (crowd[0],)
        (target,) = find(scene, shape, colour)
        meta = {"kind": kind, "copies": number}
        return scene, Question("I8", text, answer, candidates, (target.box,), meta, rivals)
