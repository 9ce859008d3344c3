"""I6: the colour of something smaller than a patch among large objects. Punishes early merging."""

from ..grammar import (
    Sketch,
    choice,
    compose,
    eased,
    extent,
    find,
    pair,
    stray_word,
    target_pair,
    visible_ground,
)
from ..keys import HELD_OUT_PAIRS
from ..scene import size_class
from ..shapes import THIN
from ..vocabulary import COLOURS, SHAPES
from .base import Question, Task, span, wording

# A ring of six pixels is mostly background.
SOLID = tuple(shape for shape in SHAPES if shape not in THIN)
_HELD_OUT_COLOURS = tuple(c for c in COLOURS if any((s, c) in HELD_OUT_PAIRS for s in SOLID))
SEEN = (
    "what colour is the tiny {}?",
    "which colour is the tiny {}?",
    "what is the colour of the tiny {}?",
    "name the colour of the tiny {}.",
    "tell me the colour of the tiny {}.",
)
UNSEEN = ("give the colour of the tiny {}.", "which colour does the tiny {} have?")


def _question(rng, split, scene, target):
    text = wording(rng, split, SEEN, UNSEEN).format(target.shape)
    rivals = tuple(sorted({o.colour for o in scene.objects} - {target.colour}))
    return Question("I6", text, target.colour, COLOURS, (target.box,), {}, rivals)


class Tiny(Task):
    id = "I6"
    title = "tiny"
    grids = (14, 64)

    def draw(
        self, rng, canvas, split, index, level=1.0, words=0.3, *, target=(0.6, 0.9), decoys=(2, 4)
    ):
        least, most = span("target", target, 0.4, 1.5)
        fewest, many = span("decoys", decoys, 0, 8)
        colours = _HELD_OUT_COLOURS if split == "test-ood" else COLOURS
        colour = colours[index % len(colours)]
        shape, _ = target_pair(rng, split, lambda s, c: c == colour and s in SOLID)
        side = canvas.patch * rng.uniform(least, most)
        if eased(rng, level):
            side = canvas.patch * rng.uniform(1.0, 1.5)
        sketches = []
        for k in range(int(rng.integers(fewest, many + 1))):
            # Half of the pictures hold a large object of the same shape: "tiny" is needed.
            twin = k == 0 and rng.random() < 0.5
            name = pair(
                rng, split, lambda s, c, twin=twin: c != colour and (s == shape or not twin)
            )
            large = extent(rng, canvas, "large")
            sketches.append(Sketch(*name, min(large, 0.3 * canvas.size)))
        # Last, so that its own small size is the measure of how much may be covered.
        sketches.append(Sketch(shape, colour, side))
        ground = visible_ground(rng, [colour], level)
        texts = stray_word(rng, canvas, ground, split, words / 2)
        scene = compose(rng, canvas, sketches, ground, texts, overlapping=0.0)
        asked = min(find(scene, shape, colour), key=lambda o: o.extent)
        return scene, _question(rng, split, scene, asked)

    def ask(self, rng, scene, split):
        patch = scene.canvas.patch
        tiny = [o for o in scene.objects if size_class(o.extent, patch) == "tiny"]
        options = [o for o in tiny if len(tiny) == 1 and o.shape in SOLID]
        return _question(rng, split, scene, choice(rng, options)) if options else None
