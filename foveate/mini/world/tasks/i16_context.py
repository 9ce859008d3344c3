"""I16: pictures with meaningless words, then a picture without: the rule is new every time."""

from ..grammar import Sketch, background, choice, compose
from ..item import PICTURE
from ..keys import HELD_OUT_PAIRS, nonsense, pairs
from ..shapes import THIN
from ..vocabulary import COLOURS, NONSENSE, SHAPES
from .base import Question, Series, span, wording

SEEN = (
    "which word fits this picture?",
    "what is the word for this picture?",
    "which word is it?",
    "name the word for the last picture.",
    "what is this called?",
)
UNSEEN = ("give the word for the last picture.", "which word does this picture have?")
RULES = ("shape", "colour", "texture")
VALUES = {
    # A thin shape shows no texture, and a hollow circle is a ring.
    "shape": tuple(shape for shape in SHAPES if shape not in THIN and shape != "circle"),
    "colour": COLOURS,
    "texture": ("plain", "striped", "dotted", "hollow"),
}


def explains(rule: str, shown: list[tuple[dict, str]]) -> bool:
    """Whether every value of the attribute stands beside one word alone."""
    words: dict[str, set] = {}
    for look, word in shown:
        words.setdefault(look[rule], set()).add(word)
    return all(len(w) == 1 for w in words.values())


class InContext(Series):
    id = "I16"
    title = "in-context"
    grids = (8, 14)

    def draw(self, rng, canvas, split, index, level=1.0, words=0.3, *, shots=(4, 12)):
        least, most = span("shots", shots, 4, 16)
        rule = RULES[index % 3]
        number = int(rng.integers(least, most + 1))
        classes = 2 if number < 6 else int(rng.integers(2, 4))
        options = nonsense(split)
        answer = options[(index // 3) % len(options)]
        others = [w for w in options if w != answer]
        names = [answer] + [others[i] for i in rng.permutation(len(others))[: classes - 1]]
        shown, query = self._episode(rng, split, rule, number, names)
        scenes = []
        for look, _ in [*shown, (query, answer)]:
            side = canvas.patch * rng.uniform(2.8, 4.5)
            one = Sketch(look["shape"], look["colour"], side, look["texture"])
            scenes.append(compose(rng, canvas, [one], background(rng, level)))
        content = tuple(part for _, word in shown for part in (PICTURE, word)) + (PICTURE,)
        text = wording(rng, split, SEEN, UNSEEN)
        # The rule needs all demonstrations of the right word, and the query.
        frames = [k for k, (_, word) in enumerate(shown) if word == answer] + [number]
        boxes = tuple(scenes[k].objects[0].box for k in frames)
        candidates = NONSENSE if split == "test-ood" else options
        meta = {"kind": rule, "shots": number, "classes": classes}
        rivals = tuple(sorted(names[1:]))
        question = Question(
            "I16", text, answer, candidates, boxes, meta, rivals, tuple(frames), content
        )
        return tuple(scenes), question

    def _episode(self, rng, split, rule, number, names):
        """Looks with their words, and the look that is asked; only ``rule`` explains the words."""
        seen = [
            (s, c) for s, c in pairs(split) if s in VALUES["shape"] and (s, c) not in HELD_OUT_PAIRS
        ]
        new = [p for p in HELD_OUT_PAIRS if p[0] in VALUES["shape"]]
        new.sort()
        while True:
            # Few values each, so that they come back under different words.
            pools = {
                name: [values[i] for i in rng.permutation(len(values))[:3]]
                for name, values in VALUES.items()
            }
            meaning = dict(zip(pools[rule], names, strict=False))
            pools[rule] = list(meaning)

            def look(allowed, pools=pools):
                options = [
                    (s, c) for s, c in allowed if s in pools["shape"] and c in pools["colour"]
                ]
                if not options:
                    return None
                shape, colour = choice(rng, options)
                return {"shape": shape, "colour": colour, "texture": choice(rng, pools["texture"])}

            drawn = [look(seen) for _ in range(number)]
            looks = [one for one in drawn if one is not None]
            query = look(new if split == "test-ood" else seen)
            if query is None or len(looks) < number:
                continue
            shown = [(one, meaning[one[rule]]) for one in looks]
            counts = [sum(w == name for _, w in shown) for name in names]
            if (
                min(counts) >= 2
                and query[rule] == next(v for v, w in meaning.items() if w == names[0])
                and query not in looks
                and not any(explains(other, shown) for other in RULES if other != rule)
            ):
                return shown, query
