"""I5: is there such an object? Absent ones are random, popular or adversarial."""

from ..grammar import background, choice, compose, crowd, pair, sketch, stray_word, target_pair
from ..keys import pairs
from .base import Question, Task, fill, wording

SEEN = (
    "is there a {} {}?",
    "is a {} {} in the picture?",
    "does the picture have a {} {}?",
    "can you see a {} {}?",
    "is there any {} {} here?",
)
UNSEEN = ("do you find a {} {} in the image?", "does the image have a {} {}?")
ABSENT = ("random", "popular", "adversarial")


def _question(rng, split, scene, first, shape, level):
    text = fill(wording(rng, split, SEEN, UNSEEN), first, shape)
    found = [o for o in scene.objects if o.shape == shape and first in (o.colour, o.texture)]
    boxes = tuple(o.box for o in found)
    return Question("I5", text, "yes" if found else "no", ("yes", "no"), boxes, {"absent": level})


class Exist(Task):
    id = "I5"
    title = "exist"

    def draw(self, rng, canvas, split, index, level=1.0, words=0.3):
        absent = (None, ABSENT[(index // 2) % 3])[index % 2]
        shape, colour = target_pair(rng, split)
        low, high = crowd(canvas, 3, 8 if split != "test-ood" else 10)
        count = int(rng.integers(2 if level < 0.3 else low, low + round(level * (high - low)) + 1))

        def other(s, c):
            if absent == "random":
                return s != shape and c != colour
            return (s, c) != (shape, colour)

        names = [pair(rng, split, other) for _ in range(count)]
        if absent is None:
            names[0] = (shape, colour)
        if absent in ("popular", "adversarial"):
            names[0] = pair(rng, split, lambda s, c: s == shape and c != colour)
        if absent == "popular":
            names[1] = pair(rng, split, lambda s, c: c == colour and s != shape)
        sketches = [sketch(rng, canvas, s, c, level) for s, c in names]
        ground = background(rng, level)
        texts = stray_word(rng, canvas, ground, split, words)
        scene = compose(rng, canvas, sketches, ground, texts)
        return scene, _question(rng, split, scene, colour, shape, absent)

    def ask(self, rng, scene, split):
        if not scene.objects:
            return None
        if rng.random() < 0.5:
            target = choice(rng, scene.objects)
            return _question(rng, split, scene, target.colour, target.shape, None)
        textured = [o for o in scene.objects if o.texture != "plain"]
        if textured and rng.random() < 0.4:
            target = choice(rng, textured)
            return _question(rng, split, scene, target.texture, target.shape, None)
        here = {(o.shape, o.colour) for o in scene.objects}
        kind = choice(rng, ABSENT)
        some = choice(rng, scene.objects)
        near = {
            "random": lambda s, c: True,
            "popular": lambda s, c: c == some.colour,
            "adversarial": lambda s, c: s == some.shape,
        }[kind]
        options = [(s, c) for s, c in pairs(split) if (s, c) not in here and near(s, c)]
        if not options:
            return None
        shape, colour = choice(rng, options)
        return _question(rng, split, scene, colour, shape, kind)
