"""I9: read a written word of the lexicon. Neighbouring tokens are needed together."""

from ..grammar import background, choice, compose, pair, sketch, write
from ..keys import lexicon
from ..vocabulary import LEXICON
from .base import Question, Task, wording

SEEN = (
    "what is written?",
    "what is the word?",
    "which word is written here?",
    "read the word.",
    "what does the text say?",
    "tell me the word.",
)
UNSEEN = ("what can you read?", "give the word in the picture.")
COLOUR_SEEN = (
    "which word is {}?",
    "what is written in {}?",
    "read the {} word.",
    "what does the {} text say?",
)
COLOUR_UNSEEN = ("give the {} word.", "what can you read in {}?")


def _question(rng, split, scene, target):
    if len(scene.texts) == 1:
        text = wording(rng, split, SEEN, UNSEEN)
    else:
        text = wording(rng, split, COLOUR_SEEN, COLOUR_UNSEEN).format(target.colour)
    candidates = lexicon(split) if split != "test-ood" else LEXICON
    return Question("I9", text, target.string.lower(), candidates, (target.box,))


class Read(Task):
    id = "I9"
    title = "read"

    def draw(self, rng, canvas, split, index, level=1.0, words=0.3):
        fine = canvas.grid > 8
        options = lexicon(split)
        word = options[index % len(options)]
        ground = background(rng, level)
        largest = 3 if fine else 2
        lowest = largest if rng.random() > level else 2 if canvas.size > 64 else 1
        texts = []
        while not texts:
            first = write(rng, canvas, ground, word.upper(), int(rng.integers(lowest, largest + 1)))
            texts = [first] if first else []
        for _ in range(int(rng.integers(1, 4)) if fine else 0):
            other = choice(rng, [w for w in options if w != word]).upper()
            taken = [t.colour for t in texts]
            scale = int(rng.integers(lowest, largest + 1))
            extra = write(rng, canvas, ground, other, scale, texts, taken)
            texts += [extra] if extra else []
        count = int(rng.integers(0, 3)) if not fine else int(rng.integers(1, 5))
        if texts[0].scale > 1 and not fine:
            count = min(count, 1)
        sketches = [sketch(rng, canvas, *pair(rng, split), level) for _ in range(count)]
        scene = compose(rng, canvas, sketches, ground, texts)
        return scene, _question(rng, split, scene, texts[0])

    def ask(self, rng, scene, split):
        colours = [t.colour for t in scene.texts]
        options = [t for t in scene.texts if colours.count(t.colour) == 1]
        return _question(rng, split, scene, choice(rng, options)) if options else None
