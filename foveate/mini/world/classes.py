"""Images with one label, for zero-shot classification: a shape, a colour or a place."""

from dataclasses import dataclass

from .captions import in_a_place
from .grammar import Sketch, background, choice, compose, pair, texture
from .keys import WorldError, generator
from .places import PLACES
from .scene import Canvas, Scene
from .tasks.i13_scene import views
from .vocabulary import COLOURS, SHAPES

KINDS = {"shape": SHAPES, "colour": COLOURS, "place": PLACES}
# Prompt templates, from the wordings of the training captions.
PROMPTS = {
    "shape": ("a {}", "a picture of a {}", "an image of a {}", "this is a {}"),
    "colour": ("a {} object", "a picture of a {} object", "this is a {} object"),
    "place": ("a {}", "a picture of a {}", "an image of a {}", "this is a {}"),
}
SIDES = (1.5, 3.5)  # of the object, in patches


@dataclass(frozen=True)
class Labelled:
    """A scene with its label and all possible labels."""

    scene: Scene
    label: str
    classes: tuple[str, ...]


def labelled(kind: str, split: str, index: int, canvas: Canvas) -> Labelled:
    """Image `index` of a kind; consecutive images rotate through the classes."""
    if kind not in KINDS:
        raise WorldError(f"unknown kind {kind!r}: use one of {', '.join(KINDS)}.")
    rng = generator(split, f"class-{kind}", index)
    classes = KINDS[kind]
    label = classes[index % len(classes)]
    if kind == "place":
        view = choice(rng, [view for view in views(split) if view[0] == label])
        return Labelled(in_a_place(rng, canvas, split, view), label, classes)
    shape, colour = pair(rng, split, lambda s, c: label in (s, c))
    side = canvas.patch * rng.uniform(*SIDES)
    made = Sketch(shape, colour, side, texture(rng, canvas, shape, side, 1.0))
    return Labelled(compose(rng, canvas, [made], background(rng)), label, classes)
