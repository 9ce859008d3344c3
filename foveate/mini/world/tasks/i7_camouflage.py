"""I7: the shape of an object that hardly differs from the background. Saliency is not relevance."""

from ..grammar import (
    Sketch,
    choice,
    compose,
    crowd,
    eased,
    find,
    mixed_extent,
    pair,
    stray_word,
    target_pair,
)
from ..palette import apart, brighter, unit
from ..scene import Background
from ..vocabulary import COLOURS, SHAPES
from .base import Question, Task, span, wording
from .i1_attribute import SHAPE_SEEN, SHAPE_UNSEEN

GROUNDS = ("flat", "noise", "gradient")


def _ground(rng, colour: str, contrast: float) -> Background:
    """Like the colour, but every channel brighter or darker by ``contrast``."""
    base = unit(colour)
    up, down = 1 - max(base), min(base)
    step = contrast if up - down > rng.uniform(-0.5, 0.5) else -contrast
    if step > 0 and up < contrast / 2:
        step = -contrast
    first = brighter(base, step)
    # The second tone leads away from the colour, never through it.
    second = brighter(first, step * 0.15)
    return Background(choice(rng, GROUNDS), first, second, int(rng.integers(2**62)))


def _question(rng, split, scene, target):
    text = wording(rng, split, SHAPE_SEEN, SHAPE_UNSEEN).format(target.colour)
    rivals = tuple(sorted({o.shape for o in scene.objects} - {target.shape}))
    return Question("I7", text, target.shape, SHAPES, (target.box,), {}, rivals)


class Camouflage(Task):
    id = "I7"
    title = "camouflage"
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
        contrast=(0.08, 0.15),
        decoys=(3, 6),
    ):
        low, high = span("contrast", contrast, 0.04, 0.5)
        fewest, most = span("decoys", decoys, 0, 12)
        most = crowd(canvas, 1, int(most) + 1)[1] - 1
        fewest = min(int(fewest), most)
        shape = SHAPES[index % len(SHAPES)]
        _, colour = target_pair(rng, split, lambda s, c: s == shape)
        step = rng.uniform(low, high)
        if eased(rng, level):
            step = rng.uniform(0.2, 0.4)
        ground = _ground(rng, colour, step)
        bright = {c for c in COLOURS if c != colour and apart(unit(c), ground.first) >= 0.45}
        big = max(mixed_extent(rng, canvas, level), 1.7 * canvas.patch)
        sketches = [Sketch(shape, colour, big)]
        for _ in range(int(rng.integers(fewest, most + 1))):
            name = pair(rng, split, lambda s, c: c in bright and s != shape)
            sketches.append(Sketch(*name, mixed_extent(rng, canvas, level)))
        texts = stray_word(rng, canvas, ground, split, words)
        scene = compose(rng, canvas, sketches, ground, texts)
        return scene, _question(rng, split, scene, find(scene, shape, colour)[0])
