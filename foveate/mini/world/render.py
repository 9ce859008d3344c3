"""Renders scenes: signed distance fields, 2 x 2 samples per pixel, drawn from back to front.

Pixels are computed only with sums, products, quotients, comparisons and table look-ups, which are
exactly rounded. So an image has the same bytes alone and in a batch. Each object is drawn in a
window of its size.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from . import font, places
from .palette import unit
from .scene import Background, Canvas, Object, Scene, Text
from .shapes import REACH, SAMPLES, atlas
from .vocabulary import SHAPES, TEXTURES

DARKER = 0.4  # brightness of the second tone of a texture
_WINDOWS = (12, 16, 20, 24, 32, 48, 80, 128, 256, 512)


@cache
def _atlas() -> Tensor:
    return torch.from_numpy(atlas()).flatten()


def background(canvas: Canvas, background: Background) -> np.ndarray:
    """float32 (size, size, 3) in 0..1."""
    size = canvas.size
    if background.kind in places.PAINTERS:
        rng = np.random.Generator(np.random.Philox(key=background.seed))
        return places.paint(rng, size, background.kind, background.weather)
    first = np.array(background.first, dtype=np.float32)
    second = np.array(background.second, dtype=np.float32)
    if background.kind == "flat":
        return np.broadcast_to(first, (size, size, 3))
    rng = np.random.Generator(np.random.Philox(key=background.seed))
    if background.kind == "noise":
        mix = rng.random((size, size), dtype=np.float32)
    elif background.kind == "gradient":
        ramp = np.arange(size, dtype=np.float32) / np.float32(size)
        share = np.float32(rng.random())
        mix = share * ramp[:, None] + (1 - share) * ramp[None, :]
    else:
        side = int(rng.integers(canvas.patch // 2, 2 * canvas.patch))
        shift = rng.integers(0, side, size=2)
        y, x = np.mgrid[:size, :size]
        mix = (((x + shift[0]) // side + (y + shift[1]) // side) % 2).astype(np.float32)
    return first + (second - first) * mix[..., None]


def _paint_texts(image: np.ndarray, texts: tuple[Text, ...]) -> None:
    for text in texts:
        ink = font.dots(text.string, text.scale)
        h, w = ink.shape
        image[text.y : text.y + h, text.x : text.x + w][ink] = unit(text.colour)


def _distances(u: Tensor, v: Tensor, shape: Tensor) -> Tensor:
    """Bilinear look-up in the atlas. u, v (N, P) in unit coordinates, shape (N,) -> (N, P)."""
    top = float(SAMPLES - 1)
    scale = top / (2 * REACH)
    u = ((u + REACH) * scale).clamp(0.0, top - 0.001)
    v = ((v + REACH) * scale).clamp(0.0, top - 0.001)
    column, row = u.floor(), v.floor()
    fu, fv = u - column, v - row
    base = (row * SAMPLES + column).int() + (shape * (SAMPLES * SAMPLES)).int()[:, None]
    table = _atlas()
    a, b = table[base], table[base + 1]
    c, d = table[base + SAMPLES], table[base + SAMPLES + 1]
    upper = a + (b - a) * fu
    lower = c + (d - c) * fu
    return upper + (lower - upper) * fv


def _cover(objects: list[Object], window: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coverage of each object on its own window.

    Returns origins x, y (N,) int64 and coverage, toned coverage (N, window, window) float32, where
    the toned one is multiplied by the texture's brightness.
    """
    rows = np.array(
        [
            (
                o.x,
                o.y,
                2.0 / o.extent,
                math.cos(o.angle),
                math.sin(o.angle),
                SHAPES.index(o.shape),
                TEXTURES.index(o.texture),
            )
            for o in objects
        ]
    )
    origin = np.floor(rows[:, :2] - window / 2).astype(np.int64)
    table = torch.from_numpy(rows.astype(np.float32))
    centre = torch.from_numpy((rows[:, :2] - origin).astype(np.float32))
    scale, cos, sin, shape, texture = (column[:, None] for column in table.T[2:])
    axis = torch.arange(window * 2, dtype=torch.float32) * 0.5 + 0.25
    dx = (axis[None, :] - centre[:, :1])[:, None, :] * scale[..., None]
    dy = (axis[None, :] - centre[:, 1:])[:, :, None] * scale[..., None]
    cos, sin = cos[..., None], sin[..., None]
    u = (dx * cos + dy * sin).flatten(1)
    v = (dy * cos - dx * sin).flatten(1)
    distance = _distances(u, v, shape[:, 0].long())
    pixel = scale  # unit lengths per pixel
    if (texture == 3).any():
        wall = torch.maximum(pixel * 1.5, torch.full_like(pixel, 0.3))
        distance = torch.where(texture == 3, torch.maximum(distance, -(distance + wall)), distance)
    cover = (0.5 - distance / (pixel * 0.5)).clamp(0.0, 1.0)
    tone = torch.ones_like(cover)
    if ((texture == 1) | (texture == 2)).any():
        period = torch.maximum(pixel * 4.0, torch.full_like(pixel, 0.5))
        pu, pv = u / period, v / period
        pu, pv = pu - pu.floor(), pv - pv.floor()
        stripe = (texture == 1) & (pu < 0.5)
        dot = (texture == 2) & ((pu - 0.5).abs() < 0.28) & ((pv - 0.5).abs() < 0.28)
        tone = torch.where(stripe | dot, torch.full_like(tone, DARKER), tone)
    return (
        torch.from_numpy(origin[:, 0]),
        torch.from_numpy(origin[:, 1]),
        _quarter(cover, window),
        _quarter(cover * tone, window),
    )


def _quarter(fine: Tensor, window: int) -> Tensor:
    """Mean of each 2 x 2 block, added in a fixed order: (N, 4 * window²) -> (N, window, window)."""
    fine = fine.view(-1, window, 2, window, 2)
    return (
        (fine[:, :, 0, :, 0] + fine[:, :, 0, :, 1]) + (fine[:, :, 1, :, 0] + fine[:, :, 1, :, 1])
    ) * 0.25


def _window(extent: float) -> int:
    need = extent * 1.2 + 3
    return next(w for w in _WINDOWS if w >= need)


def render(scenes: list[Scene], owners: bool = False) -> tuple[Tensor, Tensor | None]:
    """Draw scenes of one canvas size.

    Returns pixels uint8 (B, H, W, 3) and, when asked for, owners int8 (B, H, W): the index of the
    topmost object that covers at least half of a pixel, -1 for background.
    """
    canvas = scenes[0].canvas
    size = canvas.size
    windows = [[_window(o.extent) for o in scene.objects] for scene in scenes]
    margin = max((w for row in windows for w in row), default=0)
    side = size + 2 * margin
    field = np.zeros((len(scenes), side, side, 3), dtype=np.float32)
    inner = slice(margin, margin + size)
    for image, scene in zip(field, scenes, strict=True):
        image[inner, inner] = background(scene.canvas, scene.background)
        for panel in scene.panels:
            rows = slice(margin + panel.y0, margin + panel.y1)
            image[rows, margin + panel.x0 : margin + panel.x1] = panel.colour
    flat = torch.from_numpy(field).view(-1, 3)
    owner = torch.full((len(scenes) * side * side,), -1, dtype=torch.int8) if owners else None

    buckets: dict[int, list[tuple[int, int]]] = {}
    for b, row in enumerate(windows):
        for k, window in enumerate(row):
            buckets.setdefault(window, []).append((k, b))
    layers = []
    for window, spots in buckets.items():
        spots.sort()
        objects = [scenes[b].objects[k] for k, b in spots]
        x, y, cover, toned = _cover(objects, window)
        paint = torch.tensor([unit(o.colour) for o in objects])
        start = torch.tensor([b * side * side for _, b in spots])
        start = start + (y + margin) * side + x + margin
        step = torch.arange(window)
        offsets = (step[:, None] * side + step).flatten()
        pixels = start[:, None] + offsets
        slots = np.array([k for k, _ in spots])
        layers.append((slots, pixels, cover.flatten(1), toned.flatten(1), paint))
    # Objects of one slot belong to different scenes, so they can be painted together.
    for slot in range(max((len(s.objects) for s in scenes), default=0)):
        for slots, pixels, cover, toned, paint in layers:
            low, high = np.searchsorted(slots, (slot, slot + 1))
            if low == high:
                continue
            where, alpha = pixels[low:high], cover[low:high, :, None]
            ink = toned[low:high, :, None] * paint[low:high, None, :]
            flat[where] = flat[where] * (1.0 - alpha) + ink
            if owner is not None:
                seen = cover[low:high] > 0.5
                owner[where[seen]] = slot
    for image, scene in zip(field, scenes, strict=True):
        _paint_texts(image[inner, inner], scene.texts)
    result = torch.from_numpy(np.ascontiguousarray(field[:, inner, inner]))
    pixels = (result.clamp(0.0, 1.0) * 255.0 + 0.5).floor().to(torch.uint8)
    if owner is not None:
        owner = owner.view(len(scenes), side, side)[:, inner, inner]
    return pixels, owner
