"""I15: several pictures: which of them shows something, or what differs between two."""

from dataclasses import replace

from ..grammar import background, choice, clear_sketch, compose, pair, target_pair
from ..item import PICTURE
from ..keys import pairs
from ..vocabulary import SHAPES
from .base import Question, Series, fill, span, wording

FIND_SEEN = (
    "in which picture is a {} {}?",
    "which picture has a {} {}?",
    "in which picture can you see a {} {}?",
    "tell me which picture has the {} {}.",
    "where is the {} {}, in which picture?",
)
FIND_UNSEEN = ("find the picture with a {} {}.", "which of the pictures has a {} {}?")
DIFFER_SEEN = (
    "which shape has a different colour in the second picture?",
    "the colour of which shape differ between the pictures?",
    "which shape has changed its colour?",
    "name the shape with a different colour in the two pictures.",
)
DIFFER_UNSEEN = ("what shape changes its colour?", "find the shape that has changed its colour.")


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(part for k in range(count) for part in (f"picture {k + 1}:", PICTURE))


class Several(Series):
    id = "I15"
    title = "multi-image"
    grids = (8, 14)

    def draw(
        self, rng, canvas, split, index, level=1.0, words=0.3, *, count=(2, 8), objects=(2, 4)
    ):
        span("count", count, 2, 9)
        span("objects", objects, 1, 6)
        if index % 4 == 3:
            return self._differ(rng, canvas, split, index // 4, level, objects)
        turn = index - index // 4
        return self._find(rng, canvas, split, turn, level, count, objects)

    def _find(self, rng, canvas, split, turn, level, count, objects):
        sizes = range(count[0], count[1] + 1)
        number = sizes[turn % len(sizes)]
        gold = (turn // len(sizes)) % number
        shape, colour = target_pair(rng, split)
        scenes = []
        for k in range(number):
            names = [
                pair(rng, split, lambda s, c: (s, c) != (shape, colour))
                for _ in range(int(rng.integers(objects[0], objects[1] + 1)))
            ]
            if k == gold:
                names[0] = (shape, colour)
            elif rng.random() < 0.5:
                # Something near: the same shape in another colour.
                names[0] = pair(rng, split, lambda s, c: s == shape and c != colour)
            sketches = [clear_sketch(rng, canvas, *name, level) for name in names]
            scenes.append(compose(rng, canvas, sketches, background(rng, level)))
        text = fill(wording(rng, split, FIND_SEEN, FIND_UNSEEN), colour, shape)
        target = next(o for o in scenes[gold].objects if (o.shape, o.colour) == (shape, colour))
        return tuple(scenes), Question(
            "I15",
            text,
            str(gold + 1),
            tuple(str(k + 1) for k in range(number)),
            (target.box,),
            {"kind": "find", "pictures": number},
            frames=(gold,),
            content=_numbered(number),
        )

    def _differ(self, rng, canvas, split, turn, level, objects):
        shape = SHAPES[turn % len(SHAPES)]
        _, colour = target_pair(rng, split, lambda s, c: s == shape)
        names = [(shape, colour)]
        for _ in range(max(2, int(rng.integers(objects[0], objects[1] + 1)))):
            taken = {s for s, _ in names}
            names.append(pair(rng, split, lambda s, c, taken=taken: s not in taken))
        sketches = [clear_sketch(rng, canvas, *name, level) for name in names]
        first = compose(rng, canvas, sketches, background(rng, level))
        at = next(i for i, o in enumerate(first.objects) if o.shape == shape)
        other = choice(rng, [c for s, c in pairs("train") if s == shape and c != colour])
        changed = list(first.objects)
        changed[at] = replace(changed[at], colour=other)
        second = replace(first, objects=tuple(changed))
        text = wording(rng, split, DIFFER_SEEN, DIFFER_UNSEEN)
        box = first.objects[at].box
        rivals = tuple(sorted({o.shape for o in first.objects} - {shape}))
        meta = {"kind": "differ", "pictures": 2}
        question = Question("I15", text, shape, SHAPES, (box, box), meta, rivals, (0, 1))
        return (first, second), replace(question, content=_numbered(2))
