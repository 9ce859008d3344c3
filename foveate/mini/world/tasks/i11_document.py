"""I11: a page of words and numbers: the value of a key, a cell of a table, the title."""

from .. import font
from ..grammar import choice, ink
from ..keys import lexicon
from ..paper import shade, sheet
from ..scene import Panel, Scene, Text
from ..vocabulary import LEXICON
from .base import Question, Task, between, span, wording

VALUE_SEEN = (
    "what is the value of {}?",
    "which number is after {}?",
    "what value does {} have?",
    "read the number after {}.",
    "tell me the value of {}.",
)
VALUE_UNSEEN = ("give the number of {}.", "find the value next to {}.")
CELL_SEEN = (
    "what is in row {} column {}?",
    "which number is in row {}, column {}?",
    "what is the value in row {} column {}?",
    "read row {} column {}.",
    "tell me the number in row {} and column {}.",
)
CELL_UNSEEN = ("give the value of row {}, column {}.", "find the cell in row {} column {}.")
TITLE_SEEN = (
    "what is the title?",
    "which word is the title?",
    "what is the title of the page?",
    "read the title.",
    "name the title of this page.",
)
TITLE_UNSEEN = ("give the title of the document.", "tell me the title.")
NUMBERS = tuple(str(n) for n in range(10, 100))
TOTAL = "total"


class Page:
    """A sheet that is filled from the top; lengths in dots of the font's scale."""

    def __init__(self, rng, canvas, scale: int):
        self.rng, self.canvas, self.scale = rng, canvas, scale
        self.ground = sheet(rng)
        self.colour = ink(rng, self.ground)
        self.line = shade(self.ground, 0.3)
        self.texts: list[Text] = []
        self.panels: list[Panel] = []
        self.y = int(rng.integers(2, 7))

    def write(self, string: str, x: int, y: int, scale: int | None = None) -> Text:
        text = Text(string.upper(), self.colour, x, y, scale or self.scale)
        self.texts.append(text)
        return text

    def title(self, word: str) -> Text:
        """Larger than the rest, somewhere near the middle, with a line under it."""
        scale = self.scale + 1
        wide = font.width(word, scale)
        room = self.canvas.size - wide
        x = int(self.rng.integers(room // 4, room - room // 4 + 1))
        text = self.write(word, x, self.y, scale)
        self.y += font.GLYPH_HEIGHT * scale + 3
        self.panels.append(Panel(x, self.y, x + wide, self.y + 1, self.line))
        self.y += 4
        return text

    def pitch(self, rows: int, most: int) -> int:
        """Height of a row so that all rows fit, with some air."""
        free = self.canvas.size - self.y - 2
        return min(free // rows, most * self.scale)

    def rows(self) -> int:
        """How many rows fit."""
        return (self.canvas.size - self.y - 2) // (9 * self.scale)

    def columns(self) -> int:
        """How many columns of a key and a number fit."""
        return 1 if self.canvas.size < 92 * self.scale else 2

    def scene(self) -> Scene:
        return Scene(self.canvas, self.ground, (), tuple(self.texts), tuple(self.panels))


def _keys(rng, split, asked: str, count: int) -> list[str]:
    """The asked key first; test-ood mixes it with words that are known."""
    others = [w for w in {*lexicon("train"), *lexicon(split)} if w != asked]
    others.sort()
    return [asked] + [others[i] for i in rng.permutation(len(others))[: count - 1]]


def _numbers(rng, first: str, count: int) -> list[str]:
    others = [n for n in NUMBERS if n != first]
    return [first] + [others[i] for i in rng.permutation(len(others))[: count - 1]]


def _pairs(page: Page, keys: list[str], values: list[str], columns: int) -> dict[str, tuple]:
    """Keys with their values in one or two columns; boxes of key and value by key."""
    rows = -(-len(keys) // columns)
    pitch = page.pitch(rows, 13)
    wide = page.canvas.size // columns
    number = font.width("00", page.scale)
    longest = max(font.width(key, page.scale) for key in keys)
    spare = max(0, wide - longest - number - 4 * page.scale - 4)
    lead = [int(page.rng.integers(2, max(3, spare // 2 + 1))) for _ in range(columns)]
    gap = int(page.rng.integers(3 * page.scale, 4 * page.scale + spare // 4 + 1))
    found = {}
    for k, (key, value) in enumerate(zip(keys, values, strict=True)):
        column, row = divmod(k, rows)
        x, y = column * wide + lead[column], page.y + row * pitch
        name = page.write(key, x, y)
        right = page.write(value, x + longest + gap, y)
        found[key] = (name.box, right.box)
    return found


def _table(page: Page, cells: list[list[str]]) -> list[list[tuple]]:
    """A ruled table; the boxes of its cells."""
    rows, columns = len(cells), len(cells[0])
    number = font.width("00", page.scale)
    high = page.pitch(rows, 13)
    wide = min((page.canvas.size - 6) // columns, number + 14 * page.scale)
    left = int(page.rng.integers(2, page.canvas.size - columns * wide - 1))
    top, boxes = page.y + 1, []
    for r in range(rows + 1):
        y = top + r * high
        page.panels.append(Panel(left, y, left + columns * wide + 1, y + 1, page.line))
    for c in range(columns + 1):
        x = left + c * wide
        page.panels.append(Panel(x, top, x + 1, top + rows * high + 1, page.line))
    for r, row in enumerate(cells):
        y = top + r * high + 1 + (high - font.GLYPH_HEIGHT * page.scale) // 2
        at = [left + c * wide + 1 + (wide - number) // 2 for c in range(columns)]
        boxes.append([page.write(v, x, y).box for v, x in zip(row, at, strict=True)])
    return boxes


class Document(Task):
    id = "I11"
    title = "document page"
    grids = (24, 64)

    def draw(
        self,
        rng,
        canvas,
        split,
        index,
        level=1.0,
        words=0.3,
        *,
        lines=(8, 24),
        rows=(3, 8),
        columns=(2, 4),
        scale=None,
    ):
        fewest, most = span("lines", lines, 2, 60)
        rows, columns = span("rows", rows, 2, 20), span("columns", columns, 2, 8)
        scale = max(2, canvas.size // 128) if scale is None else scale
        between("scale", scale, 1, canvas.size // 64)
        kind, turn = ("value", "cell", "title")[index % 3], index // 3
        page = Page(rng, canvas, scale)
        options = lexicon(split)
        headline = options[turn % len(options)] if kind == "title" else choice(rng, options)
        title = page.title(headline)
        right = NUMBERS[(turn * 37) % len(NUMBERS)]
        if kind == "cell" or (kind == "title" and rng.random() < 0.5):
            values, names, evidence = self._table(rng, page, right, rows, columns, level)
            seen, unseen = CELL_SEEN, CELL_UNSEEN
        else:
            count = self._count(rng, page, (fewest, most), level)
            known = [w for w in options if w != headline]
            asked = choice(rng, [*known, *([TOTAL] * (len(known) // 4))])
            keys = [k for k in _keys(rng, split, asked, count + 1) if k != headline][:count]
            values, names, evidence = self._pairs(rng, page, right, keys)
            seen, unseen = VALUE_SEEN, VALUE_UNSEEN
        scene = page.scene()
        meta = {"kind": kind}
        if kind == "title":
            text = wording(rng, split, TITLE_SEEN, TITLE_UNSEEN)
            candidates = options if split != "test-ood" else LEXICON
            written = {t.string.lower() for t in scene.texts} - {headline}
            rivals = tuple(sorted(written & set(candidates)))
            return scene, Question("I11", text, headline, candidates, (title.box,), meta, rivals)
        text = wording(rng, split, seen, unseen).format(*names)
        rivals = tuple(sorted(set(values) - {right}))
        return scene, Question("I11", text, right, NUMBERS, evidence, meta, rivals)

    def _table(self, rng, page, right, rows, columns, level):
        """A table with the number somewhere: all numbers, its row and column, its box."""
        most = page.rows()
        high = int(rng.integers(min(rows[0], most), min(rows[1], most) + 1))
        room = (page.canvas.size - 6) // (font.width("00", page.scale) + 3 * page.scale)
        wide = int(rng.integers(min(columns[0], room), min(columns[1], room) + 1))
        high = max(2, round(high * (0.4 + 0.6 * level))) if level < 1 else high
        values = _numbers(rng, right, high * wide)
        row, column = int(rng.integers(high)), int(rng.integers(wide))
        at = row * wide + column
        values[0], values[at] = values[at], values[0]
        boxes = _table(page, [values[r * wide : (r + 1) * wide] for r in range(high)])
        return values, (row + 1, column + 1), (boxes[row][column],)

    def _count(self, rng, page, limits, level) -> int:
        """How many lines, in one column or two."""
        most = page.columns() * page.rows()
        count = int(rng.integers(min(limits[0], page.rows()), min(limits[1], most) + 1))
        return max(2, round(count * (0.4 + 0.6 * level))) if level < 1 else count

    def _pairs(self, rng, page, right, keys):
        """Keys and numbers, the first key with the number: all numbers, that key, two boxes."""
        values = _numbers(rng, right, len(keys))
        order = rng.permutation(len(keys)).tolist()
        if keys[0] == TOTAL:
            # A sum stands at the end.
            order.remove(0)
            order.append(0)
        columns = 1 if len(keys) <= min(page.rows(), 9) else page.columns()
        boxes = _pairs(page, [keys[i] for i in order], [values[i] for i in order], columns)
        return values, (keys[0],), boxes[keys[0]]
