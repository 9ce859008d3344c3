"""I12: bars with letters: which is the tallest, how high is one. Thin structures."""

from .. import font
from ..grammar import ink
from ..palette import unit
from ..paper import paints, shade, sheet
from ..scene import Panel, Scene, Text
from .base import Question, Task, span, wording

# None of the letters that name options, none that looks like a digit.
LETTERS = tuple("GHJKLMNPRTUVWXY")
VALUES = tuple(str(n) for n in range(1, 10))
TALLEST_SEEN = (
    "which bar is the tallest?",
    "what is the letter of the tallest bar?",
    "name the tallest bar.",
    "which letter has the tallest bar?",
)
TALLEST_UNSEEN = ("tell me which bar is the tallest.", "find the tallest bar.")
SHORTEST_SEEN = tuple(text.replace("tallest", "shortest") for text in TALLEST_SEEN)
SHORTEST_UNSEEN = tuple(text.replace("tallest", "shortest") for text in TALLEST_UNSEEN)
VALUE_SEEN = (
    "what is the value of bar {}?",
    "which value has bar {}?",
    "how high is bar {}?",
    "read the value of bar {}.",
)
VALUE_UNSEEN = ("give the value of bar {}.", "what value does bar {} have?")


def held_out(letter: str, value: int) -> bool:
    """Bars that training never asks about."""
    return (5 * LETTERS.index(letter) + 3 * value) % 13 < 2


def _heights(rng, count: int, kind: str, wanted: int) -> list[int]:
    """The asked bar first; the extreme is the only one of its height."""
    low, high = 1, 9
    if kind == "tallest":
        high = wanted - 1
    elif kind == "shortest":
        low = wanted + 1
    return [wanted, *(int(v) for v in rng.integers(low, high + 1, count - 1))]


class Chart(Task):
    id = "I12"
    title = "chart"
    grids = (8, 64)

    def draw(self, rng, canvas, split, index, level=1.0, words=0.3, *, bars=(3, 7)):
        fewest, most = span("bars", bars, 3, 9)
        kind, turn = ("tallest", "value", "shortest")[index % 3], index // 3
        size, scale = canvas.size, 1 if canvas.size < 100 else 2
        wide, tall = font.GLYPH_WIDTH * scale, font.GLYPH_HEIGHT * scale
        # The plot: room for numbers on the left and for letters below, a little to spare elsewhere.
        left = wide + 5 + int(rng.integers(0, 3 * scale))
        bottom = size - tall - 4 - int(rng.integers(0, 3 * scale))
        right, top = size - 2 - int(rng.integers(0, 3 * scale)), 3 + tall // 2
        unit_high = (bottom - top) // 9
        room = (right - left) // (wide + scale + 1)
        count = int(rng.integers(min(fewest, room), min(most, room) + 1))
        count = max(3, round(count * (0.5 + 0.5 * level))) if level < 1 else count

        ood = split == "test-ood"
        if kind == "value":
            value = int(VALUES[turn % 9])
            options = [a for a in LETTERS if held_out(a, value) == ood]
            letter = options[int(rng.integers(len(options)))]
        else:
            letter = LETTERS[turn % len(LETTERS)]
            span_ = range(3, 10) if kind == "tallest" else range(1, 7)
            fit = [v for v in span_ if held_out(letter, v) == ood] or list(span_)
            value = fit[int(rng.integers(len(fit)))]
        heights = _heights(rng, count, kind, value)
        others = [a for a in LETTERS if a != letter]
        letters = [letter] + [others[i] for i in rng.permutation(len(others))[: count - 1]]

        ground = sheet(rng)
        colour = ink(rng, ground)
        bar_colours = paints(rng, ground, 3)
        line, axis = shade(ground, 0.12), shade(ground, 0.5)
        panels, texts = [], []
        for step in range(1, 10):
            y = bottom - step * unit_high
            panels.append(Panel(left, y, right, y + 1, line))
            if step % 2 == 0:
                texts.append(Text(str(step), colour, left - wide - 3, y - tall // 2, scale))
        panels += [
            Panel(left - 1, bottom - 9 * unit_high, left, bottom + 1, axis),
            Panel(left - 1, bottom, right, bottom + 1, axis),
        ]
        slot = (right - left) / count
        thick = max(wide - 1, round(slot * rng.uniform(0.5, 0.7)))
        spots = {}
        for place, k in enumerate(rng.permutation(count).tolist()):
            middle = left + (place + 0.5) * slot
            x = round(middle - thick / 2)
            paint = unit(bar_colours[k % len(bar_colours)])
            bar = Panel(x, bottom - heights[k] * unit_high, x + thick, bottom, paint)
            name = Text(letters[k], colour, round(middle - wide / 2), bottom + 3, scale)
            panels.append(bar)
            texts.append(name)
            spots[k] = (bar.box, name.box)
        scene = Scene(canvas, ground, (), tuple(texts), tuple(panels))

        ticks = tuple(text.box for text in texts if text.string.isdigit())
        meta = {"kind": kind, "bars": count}
        if kind == "value":
            text = wording(rng, split, VALUE_SEEN, VALUE_UNSEEN).format(letter)
            rivals = tuple(sorted({str(h) for h in heights} - {str(value)}))
            boxes = (*spots[0], *ticks)
            return scene, Question("I12", text, str(value), VALUES, boxes, meta, rivals)
        seen, unseen = (
            (TALLEST_SEEN, TALLEST_UNSEEN)
            if kind == "tallest"
            else (SHORTEST_SEEN, SHORTEST_UNSEEN)
        )
        text = wording(rng, split, seen, unseen)
        boxes = (spots[0][1], *(spots[k][0] for k in range(count)))
        rivals = tuple(sorted(letters[1:]))
        return scene, Question("I12", text, letter, LETTERS, boxes, meta, rivals)
