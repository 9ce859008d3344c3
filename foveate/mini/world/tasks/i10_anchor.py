"""I10: the number beside a named object: find the object, then read. Two hops."""

from .. import font
from ..grammar import TURN, ink, pair, spread, target_pair, visible_ground
from ..scene import Object, Scene, Text
from .base import Question, Task, between, span, wording

SEEN = (
    "what number is next to the {} {}?",
    "which number is next to the {} {}?",
    "what is the number near the {} {}?",
    "read the number next to the {} {}.",
    "tell me the number of the {} {}.",
)
UNSEEN = ("give the number next to the {} {}.", "which number does the {} {} have?")


def numbers(digits: int) -> tuple[str, ...]:
    """All numbers of one digit, or of two."""
    return tuple(str(n) for n in range(0 if digits == 1 else 10, 10**digits))


def _question(rng, split, scene, anchors, k, digits):
    target, number = anchors[k], scene.texts[k]
    text = wording(rng, split, SEEN, UNSEEN).format(target.colour, target.shape)
    rivals = tuple(sorted(t.string for i, t in enumerate(scene.texts) if i != k))
    boxes = (target.box, number.box)
    meta = {"digits": digits}
    return Question("I10", text, number.string, numbers(digits), boxes, meta, rivals)


class Anchor(Task):
    id = "I10"
    title = "read by anchor"
    grids = (14, 64)

    def draw(
        self, rng, canvas, split, index, level=1.0, words=0.3, *, count=(4, 9), digits=1, scale=2
    ):
        fewest, most = span("count", count, 1, 12)
        between("digits", digits, 1, 2)
        between("scale", scale, 1, 4)
        p = canvas.patch
        most = min(most, canvas.grid**2 * 4 // (100 + 30 * digits))
        fewest = min(fewest, most)
        number = int(rng.integers(2 if level < 0.3 else fewest, most + 1))
        if level < 1:
            number = max(2, round(number * (0.4 + 0.6 * level)))
        right = numbers(digits)[index % len(numbers(digits))]
        others = [n for n in numbers(digits) if n != right]
        strings = [right] + [others[i] for i in rng.permutation(len(others))[: number - 1]]
        shape, colour = target_pair(rng, split)
        names = [(shape, colour)]
        while len(names) < number:
            # The first distractor shares the shape or the colour, so that both words are needed.
            if len(names) == 1 and rng.random() < 0.7:
                name = pair(rng, split, lambda s, c: s == shape or c == colour)
            else:
                name = pair(rng, split)
            names += [name] if name not in names else []
        ground = visible_ground(rng, [], level)
        colour = ink(rng, ground)
        wide, tall = font.width("0" * digits, scale), font.GLYPH_HEIGHT * scale
        gap = 2 + scale
        while True:
            side = [p * rng.uniform(1.7, 2.3) for _ in range(number)]
            turn = [float(rng.uniform(-TURN, TURN)) for _ in range(number)]
            halves = [
                Object(*n, 0, 0, e, angle=t).box[2]
                for n, e, t in zip(names, side, turn, strict=True)
            ]
            extents = [(2 * h + gap + wide, max(2 * h, tall)) for h in halves]
            spots = spread(rng, canvas, extents, p)
            if spots is not None:
                break
            number -= 1
            names, strings = names[:number], strings[:number]
        # All numbers stand on the same side, or one could belong to two objects.
        before = rng.random() < 0.5
        objects, texts = [], []
        for k, (x, y) in enumerate(spots):
            h, (w, t) = halves[k], extents[k]
            cx = x + w - h if before else x + h
            left = x if before else x + 2 * h + gap
            objects.append(
                Object(*names[k], float(cx), float(y + t / 2), side[k], "plain", turn[k])
            )
            texts.append(Text(strings[k], colour, round(left), round(y + (t - tall) / 2), scale))
        scene = Scene(canvas, ground, tuple(objects), tuple(texts))
        return scene, _question(rng, split, scene, objects, 0, digits)
