"""I14: which of two far objects of one shape is larger. Merging destroys extent."""

import math

from ..grammar import (
    Sketch,
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
from ..keys import pairs
from ..vocabulary import COLOURS
from .base import Question, Task, between, span, wording

CHECK_SEEN = (
    "is the {} {} larger than the {} {}?",
    "is the {} {} bigger than the {} {}?",
    "does the {} {} look larger than the {} {}?",
    "is the size of the {} {} larger than the size of the {} {}?",
)
CHECK_UNSEEN = (
    "do you see the {} {} as larger than the {} {}?",
    "is the {} {} more big than the {} {}?",
)
WHICH_SEEN = (
    "which {0} is larger, the {1} or the {2} one?",
    "which {0} is bigger, the {1} or the {2} one?",
    "which is the larger {0}, the {1} one or the {2} one?",
    "tell me which {0} is larger, the {1} or the {2} one.",
)
WHICH_UNSEEN = (
    "name the larger {0}, {1} or {2}.",
    "what is the colour of the bigger {0}, {1} or {2}?",
)


def _check(rng, split, large, small, truth):
    a, b = (large, small) if truth == "yes" else (small, large)
    text = wording(rng, split, CHECK_SEEN, CHECK_UNSEEN)
    text = text.format(a.colour, a.shape, b.colour, b.shape)
    boxes = (a.box, b.box)
    meta = {"kind": "check", "ratio": round(large.extent / small.extent, 3)}
    return Question("I14", text, truth, ("yes", "no"), boxes, meta)


def _which(rng, split, large, small):
    first, second = (large, small) if rng.random() < 0.5 else (small, large)
    text = wording(rng, split, WHICH_SEEN, WHICH_UNSEEN)
    text = text.format(large.shape, first.colour, second.colour)
    boxes = (large.box, small.box)
    meta = {"kind": "which", "ratio": round(large.extent / small.extent, 3)}
    return Question("I14", text, large.colour, COLOURS, boxes, meta, (small.colour,))


class Scale(Task):
    id = "I14"
    title = "spot the scale"
    grids = (8, 64)

    def draw(
        self,
        rng,
        canvas,
        split,
        index,
        level=1.0,
        words=0.3,
        *,
        ratio=(1.2, 1.6),
        distance=0.5,
        others=(1, 4),
    ):
        low, high = span("ratio", ratio, 1.05, 4)
        between("distance", distance, 0, 0.8)
        fewest, most = span("others", others, 0, 12)
        most = min(most, crowd(canvas, 1, 99)[1] - 3)
        which, value = index % 2, index // 2
        if which:
            colour = COLOURS[value % len(COLOURS)]
            shape, _ = target_pair(rng, split, lambda s, c: c == colour)
        else:
            shape, colour = target_pair(rng, split)
        _, other = pair(rng, split, lambda s, c: s == shape and c != colour)
        times = rng.uniform(low, high) + 0.8 * (1 - level)
        small = canvas.patch * rng.uniform(1.4, 2.2)
        for attempt in range(1000):
            sketches = [Sketch(shape, colour, small * times), Sketch(shape, other, small)]
            for _ in range(int(rng.integers(min(fewest, most), most + 1))):
                name = pair(rng, split, lambda s, c: s != shape)
                sketches.append(clear_sketch(rng, canvas, *name, level))
            ground = background(rng, level)
            texts = stray_word(rng, canvas, ground, split, words)
            scene = compose(rng, canvas, sketches, ground, texts)
            (a,), (b,) = find(scene, shape, colour), find(scene, shape, other)
            # On small canvases the farthest corners are taken fast: ask for less after a while.
            least = distance * canvas.size * 0.99 ** max(0, attempt - 50)
            if math.hypot(a.x - b.x, a.y - b.y) >= least:
                break
        if which:
            return scene, _which(rng, split, a, b)
        return scene, _check(rng, split, a, b, "yes" if value % 2 else "no")

    def ask(self, rng, scene, split):
        options = [
            (a, b)
            for a in scene.objects
            for b in scene.objects
            if a.shape == b.shape
            and a.extent >= 1.2 * b.extent
            and len(find(scene, a.shape, a.colour)) == len(find(scene, b.shape, b.colour)) == 1
            and {(a.shape, a.colour), (b.shape, b.colour)} <= set(pairs(split))
            and len(find(scene, a.shape)) == 2
        ]
        if not options:
            return None
        large, small = choice(rng, options)
        if rng.random() < 0.5:
            return _which(rng, split, large, small)
        return _check(rng, split, large, small, "yes" if rng.random() < 0.5 else "no")
