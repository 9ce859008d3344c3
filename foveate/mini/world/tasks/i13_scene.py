"""I13: the place, the weather or the pattern behind everything. One token is nearly enough."""

from ..grammar import BACKGROUNDS, Sketch, choice, extent, pair, place
from ..palette import brighter, unit
from ..places import PLACES, WEATHERS
from ..scene import Background, Scene
from ..vocabulary import COLOURS
from .base import Question, Task, span, wording

PLACE_SEEN = (
    "what place is this?",
    "which place is it?",
    "what kind of place is seen here?",
    "what type of scene is this?",
    "name the place in the picture.",
    "which scene does the picture show?",
)
PLACE_UNSEEN = ("what kind of scene do you see?", "where is this picture from?")
WEATHER_SEEN = (
    "what is the weather?",
    "which weather is it?",
    "how is the weather in the picture?",
    "what kind of weather is this?",
    "name the weather.",
)
WEATHER_UNSEEN = ("what weather do you see?", "tell me the type of weather.")
PATTERN_SEEN = (
    "which pattern has the background?",
    "what kind of background is this?",
    "what is the pattern of the background?",
    "name the kind of background.",
    "what type is the background?",
)
PATTERN_UNSEEN = ("what does the background look like?", "which kind of background do you see?")

# Never seen together in training; fog hides what makes a night.
HELD_OUT_VIEWS = frozenset(
    {("forest", "fog"), ("beach", "rain"), ("sea", "clear"), ("road", "fog"), ("snow", "rain")}
)
_IMPOSSIBLE = {("night", "fog")}
VIEWS = tuple((p, w) for p in PLACES for w in WEATHERS if (p, w) not in _IMPOSSIBLE)


def views(split: str) -> tuple[tuple[str, str], ...]:
    """(place, weather) that a split may show: the held-out ones alone in test-ood."""
    wanted = split == "test-ood"
    return tuple(view for view in VIEWS if (view in HELD_OUT_VIEWS) == wanted)


def _view(rng, split, kind, value) -> tuple[str, str]:
    options = views(split)
    here = tuple(dict.fromkeys(view[kind] for view in options))
    wanted = here[value % len(here)]
    return choice(rng, [view for view in options if view[kind] == wanted])


def _pattern(rng, name: str) -> Background:
    """Two tones of one colour that are far enough apart to be told."""
    base = unit(choice(rng, COLOURS))
    r, g, b = (0.15 + 0.5 * v + float(rng.uniform(-0.04, 0.04)) for v in base)
    second = brighter((r, g, b), 0.25 if r + g + b < 1.3 else -0.15)
    return Background(name, (r, g, b), second, int(rng.integers(2**62)))


class SceneType(Task):
    id = "I13"
    title = "scene type"
    grids = (8, 64)

    def draw(self, rng, canvas, split, index, level=1.0, words=0.3, *, clutter=(0, 3)):
        fewest, most = span("clutter", clutter, 0, 12)
        turn, kind = index // 4, ("place", "place", "weather", "pattern")[index % 4]
        if kind == "pattern":
            answer, candidates = BACKGROUNDS[turn % 4], BACKGROUNDS
            ground = _pattern(rng, answer)
            text = wording(rng, split, PATTERN_SEEN, PATTERN_UNSEEN)
        else:
            at = 0 if kind == "place" else 1
            view = _view(rng, split, at, 2 * turn + index % 4 if kind == "place" else turn)
            answer, candidates = view[at], PLACES if kind == "place" else WEATHERS
            ground = Background(view[0], (0, 0, 0), (0, 0, 0), int(rng.integers(2**62)), view[1])
            if kind == "place":
                text = wording(rng, split, PLACE_SEEN, PLACE_UNSEEN)
            else:
                text = wording(rng, split, WEATHER_SEEN, WEATHER_UNSEEN)
        number = int(rng.integers(fewest, most + 1))
        names = [pair(rng, split) for _ in range(number)]
        side = "medium" if canvas.grid > 8 else "small"
        objects = place(rng, canvas, [Sketch(*n, extent(rng, canvas, side)) for n in names])
        scene = Scene(canvas, ground, objects)
        return scene, Question("I13", text, answer, candidates, (), {"kind": kind})
