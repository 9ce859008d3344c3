"""I17: several questions about one picture. What the first one leaves out, a later one needs."""

from collections.abc import Callable
from dataclasses import replace

from ..grammar import background, choice, clear_sketch, compose, find, pair, target_pair, write
from ..keys import WorldError, lexicon
from ..scene import Object, clear_of_borders, region
from ..vocabulary import COLOURS, LEXICON, REGIONS, SHAPES
from .base import Dialogue, Question, span, wording
from .i3_relation import PHRASES, neighbours
from .i9_read import SEEN as READ_SEEN
from .i9_read import UNSEEN as READ_UNSEEN

NAME_SEEN = ("what colour is the {}?", "which colour is the {}?", "name the colour of the {}.")
NAME_UNSEEN = ("give the colour of the {}.", "which colour does the {} have?")
REGION_SEEN = ("where is it?", "in which region is it?", "what is its position?")
REGION_UNSEEN = ("which region is it in?", "find it.")
ITS_COLOUR_SEEN = ("what is its colour?", "which colour is it?", "what colour does it have?")
ITS_COLOUR_UNSEEN = ("name its colour.", "give its colour.")
BESIDE_SEEN = ("what shape is {} it?", "which shape is {} it?", "what is the shape {} it?")
BESIDE_UNSEEN = ("name the shape {} it.", "which shape can you see {} it?")
COUNT_SEEN = ("how many {} objects are there?", "count the {} objects.", "how many objects are {}?")
COUNT_UNSEEN = ("give the number of {} things.", "how many {} objects can you see?")
COUNTS = tuple(str(n) for n in range(10))


class Talk:
    """A dialogue in the making: what "it" is, and what was said already."""

    def __init__(self, rng, split, scene):
        self.rng, self.split, self.scene = rng, split, scene
        self.it: Object | None = None
        self.told: set = set()
        self.questions: list[Question] = []

    def _add(self, kind, key, text, answer, candidates, boxes) -> bool:
        self.told.add(key)
        self.questions.append(Question("I17", text, answer, candidates, boxes, {"kind": kind}))
        return True

    def _say(self, seen, unseen, *words) -> str:
        return wording(self.rng, self.split, seen, unseen).format(*words)

    def name(self, target=None) -> bool:
        """Turn to an object that was not talked about."""
        options = [o for o in self.scene.objects if ("colour", o.shape) not in self.told]
        if target is None and not options:
            return False
        o = self.it = target or choice(self.rng, options)
        text = self._say(NAME_SEEN, NAME_UNSEEN, o.shape)
        return self._add("name", ("colour", o.shape), text, o.colour, COLOURS, (o.box,))

    def where(self) -> bool:
        o, canvas = self.it, self.scene.canvas
        if o is None or ("where", o.shape) in self.told:
            return False
        if not clear_of_borders(o.x, o.y, canvas):
            return False
        text = self._say(REGION_SEEN, REGION_UNSEEN)
        answer = region(o.x, o.y, canvas.size)
        return self._add("where", ("where", o.shape), text, answer, REGIONS, (o.box,))

    def colour(self) -> bool:
        o = self.it
        if o is None or ("colour", o.shape) in self.told:
            return False
        text = self._say(ITS_COLOUR_SEEN, ITS_COLOUR_UNSEEN)
        return self._add("colour", ("colour", o.shape), text, o.colour, COLOURS, (o.box,))

    def beside(self) -> bool:
        """The only object on one side of it, which "it" is from then on."""
        objects = self.scene.objects
        options = [
            (side, objects[i])
            for side, i, j in neighbours(objects, self.scene.canvas.patch, 1.5)
            if objects[j] is self.it and ("colour", objects[i].shape) not in self.told
        ]
        if self.it is None or not options:
            return False
        side, other = choice(self.rng, options)
        text = self._say(BESIDE_SEEN, BESIDE_UNSEEN, PHRASES[side])
        boxes = (other.box, self.it.box)
        self.it = other
        return self._add("beside", ("shape", other.shape), text, other.shape, SHAPES, boxes)

    def count(self) -> bool:
        colours = sorted({o.colour for o in self.scene.objects})
        options = [c for c in colours if ("count", c) not in self.told]
        if not options:
            return False
        colour = choice(self.rng, options)
        members = find(self.scene, colour=colour)
        self.it = None
        text = self._say(COUNT_SEEN, COUNT_UNSEEN, colour)
        boxes = tuple(o.box for o in members)
        return self._add("count", ("count", colour), text, str(len(members)), COUNTS, boxes)

    def read(self) -> bool:
        if "read" in self.told or not self.scene.texts:
            return False
        (word,) = self.scene.texts
        self.it = None
        text = self._say(READ_SEEN, READ_UNSEEN)
        candidates = LEXICON if self.split == "test-ood" else lexicon(self.split)
        return self._add("read", "read", text, word.string.lower(), candidates, (word.box,))


class Conversation(Dialogue):
    id = "I17"
    title = "dialogue"
    grids = (8, 64)

    def draw(
        self, rng, canvas, split, index, level=1.0, words=0.3, *, turns=(4, 8), objects=(4, 6)
    ):
        least, most = span("turns", turns, 2, 12)
        fewest, many = span("objects", objects, 2, 9)
        number = int(rng.integers(least, most + 1))
        colour = COLOURS[index % len(COLOURS)]
        shape, _ = target_pair(rng, split, lambda s, c: c == colour)
        names = [(shape, colour)]
        for k in range(int(rng.integers(fewest, many + 1)) - 1):
            taken = {s for s, _ in names}
            # Some colours come twice, so that counting is not always one.
            again = k == 0 and rng.random() < 0.7
            names.append(
                pair(
                    rng,
                    split,
                    lambda s, c, taken=taken, again=again: (
                        s not in taken and (c == colour or not again)
                    ),
                )
            )
        for _ in range(300):
            ground = background(rng, level)
            scale = 1 if canvas.size < 100 else 2
            word = write(rng, canvas, ground, choice(rng, lexicon(split)).upper(), scale)
            texts = (word,) if word else ()
            sketches = [clear_sketch(rng, canvas, *name, level) for name in names]
            scene = compose(rng, canvas, sketches, ground, texts)
            talk = Talk(rng, split, scene)
            talk.name(find(scene, shape, colour)[0])
            self._go_on(rng, talk, number)
            said = talk.questions
            if len(said) == number and said[-1].evidence != said[0].evidence:
                break
        else:
            raise WorldError(f"{len(names)} objects are not enough for {number} turns.")
        questions = tuple(
            replace(question, meta={**question.meta, "turn": k, "turns": number})
            for k, question in enumerate(talk.questions)
        )
        return scene, questions

    def _go_on(self, rng, talk: Talk, number: int) -> None:
        """Turns until the number is full; the last one is never about the first object."""
        first = talk.it
        while len(talk.questions) < number:
            last = len(talk.questions) == number - 1
            kinds: list[Callable[[], bool]] = [talk.count, talk.read, talk.name]
            if not last or talk.it is not first:
                kinds += 3 * [talk.where, talk.colour, talk.beside]
            for i in rng.permutation(len(kinds)):
                if kinds[i]():
                    break
            else:
                return
