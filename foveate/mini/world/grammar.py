"""Random scenes: backgrounds, positions, sizes, textures, words.

Positions are continuous and uniform over the image. Objects aligned with the patch grid would
favour merging methods; centred objects would favour methods that prefer the centre.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from . import font
from .keys import HELD_OUT_PAIRS, lexicon, pairs
from .palette import apart, luminance, unit
from .scene import SIZE_RANGES, Background, Box, Canvas, Object, Scene, Text, region
from .shapes import THIN
from .vocabulary import COLOURS, TEXTURES

BACKGROUNDS = ("flat", "gradient", "noise", "checker")
TURN = 0.17  # radians; more would make a diamond of a square
TEXTURED_FROM = 1.5  # patch sides; stripes on less are not visible


@dataclass
class Sketch:
    """An object without a position; ``region`` restricts its centre to a named region."""

    shape: str
    colour: str
    extent: float
    texture: str = "plain"
    region: str | None = None


def choice(rng: np.random.Generator, options: Sequence):
    """One of the options, uniformly."""
    return options[int(rng.integers(len(options)))]


def background(rng: np.random.Generator, level: float = 1.0) -> Background:
    """A dark or light background with contrast below 0.25; mid-grey is reserved for objects."""
    kind = choice(rng, BACKGROUNDS)
    if eased(rng, level):
        kind = "flat"
    dark = rng.random() < 0.6
    base = rng.uniform(0.06, 0.24) if dark else rng.uniform(0.74, 0.8)
    first = base + rng.uniform(-0.02, 0.02, 3)
    second = first + rng.uniform(0.03, 0.08) if rng.random() < 0.5 else first - 0.04
    first, second = first.clip(0, 1), second.clip(0, 1)
    return Background(kind, tuple(first.tolist()), tuple(second.tolist()), int(rng.integers(2**62)))


def visible_ground(
    rng: np.random.Generator, colours: Sequence[str], level: float = 1.0, least: float = 0.3
) -> Background:
    """A background on which small or thin objects of the given colours are visible."""
    while True:
        ground = background(rng, level)
        tones = (ground.first, ground.second)
        if all(apart(unit(c), tone) >= least for c in colours for tone in tones):
            return ground


def eased(rng: np.random.Generator, level: float) -> bool:
    """Whether to make a training scene easier; never at level 1, which draws no number."""
    return level < 1 and rng.random() > level


def extent(rng: np.random.Generator, canvas: Canvas, name: str) -> float:
    """A side in pixels of a size class."""
    low, high = SIZE_RANGES[name]
    return canvas.patch * rng.uniform(low, high)


def crowd(canvas: Canvas, low: int, high: int) -> tuple[int, int]:
    """Range of the number of objects; an image of 8 x 8 patches has room for at most six."""
    high = max(3, min(high, canvas.grid**2 // 11))
    return min(low, high), high


def mixed_extent(rng: np.random.Generator, canvas: Canvas, level: float) -> float:
    """Side of a medium object; on a coarse grid half of them have only 1.25 to 2 patches."""
    if canvas.grid <= 8 and eased(rng, level):
        return canvas.patch * rng.uniform(2.0, 2.8)
    if canvas.grid <= 8 and rng.random() < 0.6:
        return canvas.patch * rng.uniform(1.25, 2.0)
    if canvas.grid <= 8:
        return canvas.patch * rng.uniform(1.6, 2.4)
    return extent(rng, canvas, "medium")


def texture(rng: np.random.Generator, canvas: Canvas, shape: str, side: float, level: float) -> str:
    """Mostly plain; a texture only on objects that are large enough to show it."""
    if side < TEXTURED_FROM * canvas.patch or eased(rng, level) or rng.random() < 0.7:
        return "plain"
    return choice(rng, TEXTURES[:3] if shape in THIN else TEXTURES)


def pair(
    rng: np.random.Generator,
    split: str,
    accept: Callable[[str, str], bool] = lambda shape, colour: True,
) -> tuple[str, str]:
    """A (shape, colour) pair of the split that ``accept`` accepts."""
    options = pairs(split)
    for _ in range(200):
        shape, colour = choice(rng, options)
        if accept(shape, colour):
            return shape, colour
    return choice(rng, [p for p in options if accept(*p)])


def target_pair(
    rng: np.random.Generator,
    split: str,
    accept: Callable[[str, str], bool] = lambda shape, colour: True,
) -> tuple[str, str]:
    """The pair of the target object; in test-ood one that never occurs in training."""
    if split != "test-ood":
        return pair(rng, split, accept)
    return pair(rng, split, lambda s, c: (s, c) in HELD_OUT_PAIRS and accept(s, c))


def sketch(rng, canvas: Canvas, shape: str, colour: str, level: float = 1.0) -> Sketch:
    """A pair with a size and a texture."""
    side = mixed_extent(rng, canvas, level)
    return Sketch(shape, colour, side, texture(rng, canvas, shape, side, level))


def clear_sketch(rng, canvas: Canvas, shape: str, colour: str, level: float = 1.0) -> Sketch:
    """A sketch without ambiguous textures: a hollow circle would be a ring."""
    made = sketch(rng, canvas, shape, colour, level)
    if made.shape == "circle" and made.texture == "hollow":
        made.texture = "plain"
    return made


def overlap(a: Box, b: Box, slack: float = 0.0) -> bool:
    """Whether two boxes share more than ``slack`` pixels on both axes."""
    return min(a[2], b[2]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[1], b[1]) > slack


def _spot(rng, canvas: Canvas, sketch: Sketch, turn: float) -> Object | None:
    """The sketch at a uniform position in the image, or None if it is outside its region."""
    half = Object(sketch.shape, sketch.colour, 0, 0, sketch.extent, angle=turn).box[2]
    low, high = [half, half], [canvas.size - half, canvas.size - half]
    if sketch.region is not None:
        quarter, third = canvas.patch / 4, canvas.size / 3
        row, column = divmod(_REGION_INDEX[sketch.region], 3)
        for axis, cell in enumerate((column, row)):
            low[axis] = max(low[axis], cell * third + (quarter if cell else 0))
            high[axis] = min(high[axis], (cell + 1) * third - (quarter if cell < 2 else 0))
    if low[0] >= high[0] or low[1] >= high[1]:
        return None
    x, y = rng.uniform(low, high)
    return Object(
        sketch.shape, sketch.colour, float(x), float(y), sketch.extent, sketch.texture, turn
    )


def place(
    rng: np.random.Generator,
    canvas: Canvas,
    sketches: Sequence[Sketch],
    texts: Sequence[Text] = (),
    overlapping: float = 0.1,
) -> tuple[Object, ...]:
    """Place all sketches with boxes that overlap by at most a tenth; shrink them if crowded."""
    shrink = 1.0
    while True:
        placed: list[Object] = []
        for item in sketches:
            item = Sketch(item.shape, item.colour, item.extent * shrink, item.texture, item.region)
            turn = float(rng.uniform(-TURN, TURN))
            for _ in range(12):
                spot = _spot(rng, canvas, item, turn)
                if spot is None:
                    break
                slack = overlapping * spot.extent
                if not any(overlap(spot.box, o.box, slack) for o in placed) and not any(
                    overlap(spot.box, t.box) for t in texts
                ):
                    placed.append(spot)
                    break
            else:
                break
            if spot is None:
                break
        if len(placed) == len(sketches):
            return tuple(placed)
        shrink *= 0.95


def ink(rng: np.random.Generator, ground: Background, taken: Sequence[str] = ()) -> str:
    """A colour that differs from the background by at least 0.4 in brightness."""
    levels = [luminance(ground.first), luminance(ground.second)]
    fits = [
        colour
        for colour in COLOURS
        if colour not in taken and min(abs(luminance(unit(colour)) - v) for v in levels) >= 0.4
    ]
    return choice(rng, fits or [c for c in COLOURS if c not in taken])


def write(
    rng: np.random.Generator,
    canvas: Canvas,
    ground: Background,
    string: str,
    scale: int,
    others: Sequence[Text] = (),
    taken: Sequence[str] = (),
) -> Text | None:
    """The string at a uniform position without other text; None if there is no room."""
    while scale > 1 and font.width(string, scale) > canvas.size - 2:
        scale -= 1
    right = canvas.size - font.width(string, scale)
    bottom = canvas.size - font.GLYPH_HEIGHT * scale
    colour = ink(rng, ground, taken)
    for _ in range(12):
        x, y = int(rng.integers(0, right + 1)), int(rng.integers(0, bottom + 1))
        text = Text(string, colour, x, y, scale)
        if not any(overlap(text.box, other.box, -2) for other in others):
            return text
    return None


def stray_word(
    rng, canvas: Canvas, ground: Background, split: str, share: float, taken: Sequence[Box] = ()
) -> tuple[Text, ...]:
    """With probability ``share`` one small word as distractor, outside occupied boxes."""
    if rng.random() >= share:
        return ()
    word = write(rng, canvas, ground, choice(rng, lexicon(split)).upper(), 1)
    if word is None or any(overlap(word.box, box) for box in taken):
        return ()
    return (word,)


def spread(
    rng: np.random.Generator, canvas: Canvas, extents: Sequence[tuple[float, float]], apart: float
) -> list[tuple[float, float]] | None:
    """Top left corners of boxes (width, height) at least ``apart`` pixels from each other."""
    for _ in range(6):
        boxes: list[Box] = []
        for w, h in extents:
            for _ in range(24):
                x, y = rng.uniform(1, canvas.size - 1 - w), rng.uniform(1, canvas.size - 1 - h)
                box = (float(x), float(y), float(x + w), float(y + h))
                if not any(overlap(box, other, -apart) for other in boxes):
                    boxes.append(box)
                    break
            else:
                break
        if len(boxes) == len(extents):
            return [(box[0], box[1]) for box in boxes]
    return None


def compose(
    rng: np.random.Generator,
    canvas: Canvas,
    sketches: Sequence[Sketch],
    ground: Background,
    texts: Sequence[Text] = (),
    overlapping: float = 0.1,
) -> Scene:
    """Place the sketches and shuffle their depth order."""
    objects = place(rng, canvas, sketches, texts, overlapping)
    order = rng.permutation(len(objects))
    return Scene(canvas, ground, tuple(objects[i] for i in order), tuple(texts))


def find(scene: Scene, shape: str | None = None, colour: str | None = None) -> list[Object]:
    """Objects that have the given attributes."""
    return [
        o
        for o in scene.objects
        if (shape is None or o.shape == shape) and (colour is None or o.colour == colour)
    ]


_REGION_INDEX = {
    region((c + 0.5) / 3, (r + 0.5) / 3, 1): 3 * r + c for r in range(3) for c in range(3)
}
