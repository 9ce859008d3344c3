"""Labels of the vision warm-up: which words are true of which patch.

Labels are colour, shape, texture, size and region of the object on the patch, the characters and
the word written across it, and the region of an empty patch.
"""

from functools import cache

import torch
from torch import Tensor

from . import font
from .keys import PAIRS
from .scene import Scene, region, size_class
from .vocabulary import COLOURS, LEXICON, REGIONS, SHAPES, SIZES, TEXTURES, groups, ids

CHARACTERS = groups()["letters"] + groups()["digits"]
VISUAL_WORDS = COLOURS + SHAPES + TEXTURES + SIZES + REGIONS + CHARACTERS + LEXICON
COLUMN = {word: i for i, word in enumerate(VISUAL_WORDS)}

# An object is "on" a patch when it covers this share of the patch, or this share of itself.
PATCH_SHARE = 0.12
OBJECT_SHARE = 0.25

_PAIR_COLUMN = {pair: i for i, pair in enumerate(PAIRS)}
_WORD_COLUMN = {word: len(PAIRS) + i for i, word in enumerate(LEXICON)}
PICTURE_LABELS = len(PAIRS) + len(LEXICON)


@cache
def visual_word_ids() -> Tensor:
    """Token ids of `VISUAL_WORDS`, int64 (W,)."""
    return torch.tensor([ids()[word] for word in VISUAL_WORDS])


@cache
def _own_regions(grid: int) -> Tensor:
    table = torch.zeros(grid * grid, len(VISUAL_WORDS))
    for row in range(grid):
        for column in range(grid):
            name = region((column + 0.5) / grid, (row + 0.5) / grid, 1)
            table[row * grid + column, COLUMN[name]] = 1
    return table


def _patches(box, canvas, share: float) -> list[int]:
    """Patches of which a box covers at least ``share`` of its own or of the patch's area."""
    p, grid = canvas.patch, canvas.grid
    x0, y0, x1, y1 = box
    least = share * min(p * p, (x1 - x0) * (y1 - y0))
    found = []
    for row in range(max(0, int(y0 // p)), min(grid - 1, int(y1 // p)) + 1):
        for column in range(max(0, int(x0 // p)), min(grid - 1, int(x1 // p)) + 1):
            w = min(x1, (column + 1) * p) - max(x0, column * p)
            h = min(y1, (row + 1) * p) - max(y0, row * p)
            if w > 0 and h > 0 and w * h >= least:
                found.append(row * grid + column)
    return found


def patch_words(scenes: list[Scene], owners: Tensor) -> Tensor:
    """Multi-hot labels, float32 (B, P, W): P patches in raster order, W `VISUAL_WORDS`.

    ``owners`` is the int8 (B, H, W) map that `render` makes.
    """
    canvas = scenes[0].canvas
    p, grid = canvas.patch, canvas.grid
    most = max(1, max(len(s.objects) for s in scenes))
    attributes = torch.zeros(len(scenes), most, len(VISUAL_WORDS))
    for b, scene in enumerate(scenes):
        for k, o in enumerate(scene.objects):
            place = region(o.x, o.y, canvas.size)
            size = size_class(o.extent, p)
            for word in (o.colour, o.shape, o.texture, size, place):
                attributes[b, k, COLUMN[word]] = 1
    ids_ = torch.arange(most, dtype=torch.int8)
    seen = owners[:, None] == ids_[:, None, None]
    counts = seen.view(-1, most, grid, p, grid, p).sum((3, 5)).flatten(2).float()
    least = torch.minimum(
        torch.full_like(counts[..., :1], PATCH_SHARE * p * p),
        counts.sum(-1, keepdim=True) * OBJECT_SHARE,
    ).clamp_min(1)
    on = (counts >= least).float()
    labels = (on.transpose(1, 2) @ attributes).clamp_(max=1)
    for b, scene in enumerate(scenes):
        for text in scene.texts:
            word = text.string.lower()
            # With a single text its colour is never asked, and "red" would blur the count of red.
            several = [COLUMN[text.colour]] if len(scene.texts) > 1 else []
            whole = several + ([COLUMN[word]] if word in COLUMN else [])
            whole.append(COLUMN[region(*_middle(text.box), canvas.size)])
            for patch in _patches(text.box, canvas, PATCH_SHARE):
                labels[b, patch, whole] = 1
            for i, character in enumerate(text.string):
                left = text.x + i * 6 * text.scale
                box = (left, text.y, left + 5 * text.scale, text.y + 7 * text.scale)
                for patch in _patches(box, canvas, 0.3):
                    labels[b, patch, COLUMN[character]] = 1
    empty = labels.sum(-1, keepdim=True) == 0
    return torch.where(empty, _own_regions(grid), labels)


def picture_labels(scenes: list[Scene]) -> Tensor:
    """Multi-hot float32 (B, PICTURE_LABELS): (shape, colour) pairs present, then words written."""
    labels = torch.zeros(len(scenes), PICTURE_LABELS)
    for b, scene in enumerate(scenes):
        for o in scene.objects:
            labels[b, _PAIR_COLUMN[o.shape, o.colour]] = 1
        for text in scene.texts:
            if text.string.lower() in _WORD_COLUMN:
                labels[b, _WORD_COLUMN[text.string.lower()]] = 1
    return labels


def ink(scenes: list[Scene], owners: Tensor) -> Tensor:
    """Foreground mask of objects and text, 0 or 1, float32 (B, H, W)."""
    drawn = owners >= 0
    for b, scene in enumerate(scenes):
        for text in scene.texts:
            dots = torch.from_numpy(font.dots(text.string, text.scale))
            h, w = dots.shape
            drawn[b, text.y : text.y + h, text.x : text.x + w] |= dots
    return drawn.float()


def _middle(box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
