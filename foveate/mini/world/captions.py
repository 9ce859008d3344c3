"""Captions and scenes for image-text training.

A caption states some facts of a scene in random order. Each wording of a fact names the shape of
the object; some also name its colour, size, texture or region.
"""

import numpy as np

from .grammar import (
    Sketch,
    background,
    choice,
    compose,
    crowd,
    extent,
    pair,
    place,
    sketch,
    stray_word,
)
from .keys import generator
from .places import PLACES
from .scene import Background, Canvas, Object, Scene, region, size_class
from .tasks.base import fill
from .tasks.i13_scene import views

OPENINGS = ("", "", "a picture of ", "an image of ", "this is ", "see ", "a scene with ")
OBJECTS = (
    "a {shape}",
    "a {colour} {shape}",
    "a {colour} {shape}",
    "a {size} {colour} {shape}",
    "a {texture} {colour} {shape}",
    "a {colour} {shape} at the {region}",
    "a {colour} object",
)
WEATHER = ("a {place}", "a {place} in {weather} weather", "the {place} with {weather} weather")
WORDS = ("the word {}", "{} written in the picture", "a text that says {}")
GROUNDS = ("a {} background", "a background of the {} kind")
MOST = 4  # facts in one caption


def scene(rng: np.random.Generator, canvas: Canvas, split: str) -> Scene:
    """A scene with one or more objects on a plain background or in a place, some with a word."""
    low, high = crowd(canvas, 1, 6)
    count = 1 if rng.random() < 0.35 else int(rng.integers(low, high + 1))
    names = [pair(rng, split) for _ in range(count)]
    if rng.random() < 0.35:
        return in_a_place(rng, canvas, split, choice(rng, views(split)), names[:3])
    ground = background(rng)
    texts = stray_word(rng, canvas, ground, split, 0.35)
    return compose(rng, canvas, [sketch(rng, canvas, *name) for name in names], ground, texts)


def in_a_place(rng, canvas: Canvas, split: str, view: tuple[str, str], names=()) -> Scene:
    """A scene of a (place, weather) with small objects in it."""
    ground = Background(view[0], (0, 0, 0), (0, 0, 0), int(rng.integers(2**62)), view[1])
    side = "medium" if canvas.grid > 8 else "small"
    some = names[: int(rng.integers(0, len(names) + 1))]
    objects = place(rng, canvas, [Sketch(*name, extent(rng, canvas, side)) for name in some])
    return Scene(canvas, ground, objects)


def facts(rng: np.random.Generator, scene: Scene) -> list[str]:
    """All facts of a scene, each in a random wording, in random order."""
    said = [_object(rng, scene, o) for o in scene.objects]
    said += [choice(rng, WORDS).format(text.string.lower()) for text in scene.texts]
    ground = scene.background
    if ground.kind in PLACES:
        said.append(choice(rng, WEATHER).format(place=ground.kind, weather=ground.weather))
    elif rng.random() < 0.3:
        said.append(choice(rng, GROUNDS).format(ground.kind))
    return [said[i] for i in rng.permutation(len(said))]


def _object(rng, scene: Scene, o: Object) -> str:
    words = {
        "shape": o.shape,
        "colour": o.colour,
        "texture": o.texture,
        "size": size_class(o.extent, scene.canvas.patch),
        "region": region(o.x, o.y, scene.canvas.size),
    }
    return choice(rng, OBJECTS).format(**words)


def caption(rng: np.random.Generator, scene: Scene, fewest: int = 1) -> str:
    """A caption of `fewest` to `MOST` facts, as far as the scene has them."""
    listed = facts(rng, scene)
    most = min(MOST, len(listed))
    some = listed[: int(rng.integers(min(fewest, most), most + 1))]
    text = ", ".join(some[:-1]) + " and " + some[-1] if len(some) > 1 else some[0]
    return fill(choice(rng, OPENINGS) + text)


def pictures(split: str, first: int, count: int, canvas: Canvas, seed: int = 0) -> list[Scene]:
    """Scenes `first` to `first + count - 1` of the stream of a split and seed."""
    return [
        scene(generator(split, f"caption{seed}", index), canvas, split)
        for index in range(first, first + count)
    ]
