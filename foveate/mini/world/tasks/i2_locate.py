"""I2: in which of nine regions an object lies. Punishes methods that lose positions."""

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
from ..scene import clear_of_borders, region
from ..vocabulary import REGIONS
from .base import Question, Task, wording

SEEN = (
    "where is the {} {}?",
    "in which region is the {} {}?",
    "what is the position of the {} {}?",
    "which part has the {} {}?",
    "name the region of the {} {}.",
    "tell me where the {} {} is.",
)
UNSEEN = ("find the {} {}.", "which region has the {} {}?")


def _question(rng, split, target, size):
    text = wording(rng, split, SEEN, UNSEEN).format(target.colour, target.shape)
    return Question("I2", text, region(target.x, target.y, size), REGIONS, (target.box,))


class Locate(Task):
    id = "I2"
    title = "locate"

    def draw(self, rng, canvas, split, index, level=1.0, words=0.3):
        shape, colour = target_pair(rng, split)
        low, high = crowd(canvas, 3, 8 if split != "test-ood" else 10)
        count = int(rng.integers(2 if level < 0.3 else low, low + round(level * (high - low)) + 1))
        target = sketch(rng, canvas, shape, colour, level)
        target.region = REGIONS[index % len(REGIONS)]
        sketches = [target]
        for k in range(count - 1):
            # One distractor shares the shape or the colour, so that both words are needed.
            mode = int(rng.integers(3)) if k == 0 else 2
            other = pair(
                rng,
                split,
                lambda s, c, mode=mode: (
                    (s, c) != (shape, colour)
                    and (mode != 0 or s == shape)
                    and (mode != 1 or c == colour)
                ),
            )
            sketches.append(sketch(rng, canvas, *other, level))
        ground = background(rng, level)
        texts = stray_word(rng, canvas, ground, split, words)
        scene = compose(rng, canvas, sketches, ground, texts)
        return scene, _question(rng, split, find(scene, shape, colour)[0], canvas.size)

    def ask(self, rng, scene, split):
        canvas = scene.canvas
        options = [
            o
            for o in scene.objects
            if clear_of_borders(o.x, o.y, canvas) and len(find(scene, o.shape, o.colour)) == 1
        ]
        return _question(rng, split, choice(rng, options), canvas.size) if options else None
