"""Ten places and three weathers as backgrounds, drawn from bands, boxes and triangles.

Only sums, products, quotients and comparisons touch the pixels: see `render`.
"""

import numpy as np

from .vocabulary import groups

PLACES = groups()["scenes"]
WEATHERS = ("clear", "rain", "fog")


class Painting:
    """A picture to paint on in units of its side: x to the right, y down, both 0..1."""

    def __init__(self, rng: np.random.Generator, size: int):
        self.rng, self.size = rng, size
        self.pixels = np.zeros((size, size, 3), dtype=np.float32)
        axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
        self.x, self.y = axis[None, :], axis[:, None]

    def band(self, top: float, bottom: float, upper, lower=None) -> None:
        """Rows from one height to another, running from one colour to a second one."""
        rows = slice(round(top * self.size), round(bottom * self.size))
        share = (self.y[rows] - np.float32(top)) / np.float32(max(bottom - top, 1e-6))
        first = np.array(upper, dtype=np.float32)
        second = np.array(upper if lower is None else lower, dtype=np.float32)
        self.pixels[rows] = (first + (second - first) * share.clip(0, 1))[:, None]

    def box(self, left: float, top: float, right: float, bottom: float, colour) -> None:
        """An upright rectangle, at least one pixel wide and high."""
        x0, y0 = round(left * self.size), round(top * self.size)
        x1, y1 = max(x0 + 1, round(right * self.size)), max(y0 + 1, round(bottom * self.size))
        self.pixels[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = colour

    def fill(self, mask: np.ndarray, colour) -> None:
        """All pixels of a mask."""
        self.pixels[np.broadcast_to(mask, self.pixels.shape[:2])] = colour

    def triangle(self, x: float, top: float, bottom: float, half: float, colour) -> None:
        """Point up, base as wide as twice ``half``."""
        share = (self.y - np.float32(top)) / np.float32(bottom - top)
        wide = np.abs(self.x - np.float32(x)) <= np.float32(half) * share
        self.fill(wide & (share >= 0) & (share <= 1), colour)

    def disc(self, x: float, y: float, radius: float, colour) -> None:
        dx, dy = self.x - np.float32(x), self.y - np.float32(y)
        self.fill(dx * dx + dy * dy <= np.float32(radius * radius), colour)

    def grain(self, amount: float, top: float = 0.0) -> None:
        """Light noise from a height downwards."""
        rows = slice(round(top * self.size), None)
        shape = (*self.pixels[rows].shape[:2], 1)
        noise = self.rng.random(shape, dtype=np.float32) - np.float32(0.5)
        self.pixels[rows] += noise * np.float32(2 * amount)

    def wave(self, period: float, phase: float) -> np.ndarray:
        """A zigzag over x between 0 and 1."""
        t = self.x / np.float32(period) + np.float32(phase)
        t = t - np.floor(t)
        return np.minimum(t, 1 - t) * 2

    def about(self, value: float, by: float) -> float:
        """A number near a value."""
        return float(self.rng.uniform(value - by, value + by))


def _forest(p: Painting) -> None:
    horizon = p.about(0.25, 0.06)
    p.band(0, horizon, (0.55, 0.75, 0.85), (0.7, 0.85, 0.85))
    p.band(horizon, 1, (0.12, 0.33, 0.12), (0.2, 0.42, 0.14))
    p.grain(0.03, horizon)
    for depth in np.sort(p.rng.random(11)):
        x, foot = p.rng.random(), horizon + 0.12 + 0.55 * depth
        tall = 0.3 + 0.25 * depth
        green = (0.04, 0.22 + 0.16 * p.rng.random(), 0.08)
        p.box(x - 0.012, foot - 0.05, x + 0.012, foot + 0.05, (0.32, 0.2, 0.1))
        p.triangle(x, foot - tall, foot - tall / 3, 0.07, green)
        p.triangle(x, foot - tall * 0.65, foot, 0.1, green)


def _beach(p: Painting) -> None:
    horizon, shore = p.about(0.32, 0.05), p.about(0.58, 0.06)
    p.band(0, horizon, (0.35, 0.65, 0.95), (0.7, 0.88, 0.98))
    p.disc(p.rng.random(), horizon * 0.4, 0.07, (1.0, 0.93, 0.5))
    p.band(horizon, shore, (0.08, 0.4, 0.7), (0.2, 0.7, 0.8))
    p.band(shore, 1, (0.96, 0.87, 0.6), (0.92, 0.78, 0.48))
    p.grain(0.02, shore)
    line = np.float32(shore) + np.float32(0.03) * p.wave(0.4, p.rng.random())
    p.fill((p.y > line - 0.02) & (p.y < line + 0.012), (0.97, 0.98, 0.98))


def _city(p: Painting) -> None:
    p.band(0, 1, (0.6, 0.7, 0.82), (0.82, 0.84, 0.86))
    left = p.about(-0.05, 0.04)
    while left < 1:
        wide, top = p.about(0.17, 0.04), p.about(0.32, 0.17)
        gray = p.about(0.36, 0.08)
        p.box(left, top, left + wide - 0.015, 1, (gray, gray, gray * 1.1))
        for y in np.arange(top + 0.04, 0.86, 0.085):
            for x in np.arange(left + 0.025, left + wide - 0.05, 0.05):
                if x > 0:
                    lit = p.rng.random() < 0.6
                    window = (0.98, 0.9, 0.5) if lit else (0.2, 0.22, 0.3)
                    p.box(x, y, x + 0.025, y + 0.045, window)
        left += wide
    p.box(0, 0.92, 1, 1, (0.25, 0.25, 0.26))


def _desert(p: Painting) -> None:
    horizon = p.about(0.4, 0.05)
    p.band(0, 1, (0.95, 0.8, 0.55), (0.98, 0.9, 0.7))
    p.disc(p.rng.random(), p.about(0.14, 0.04), 0.06, (1.0, 0.97, 0.8))
    tones = ((0.88, 0.62, 0.32), (0.8, 0.52, 0.25), (0.86, 0.58, 0.28))
    for k, tone in enumerate(tones):
        ridge = np.float32(horizon + 0.19 * k) - np.float32(0.12) * p.wave(
            p.about(0.8, 0.15), p.rng.random()
        )
        p.fill(p.y > ridge + 0.1, tone)
    p.grain(0.02, horizon)
    for _ in range(2):
        x, foot = p.about(0.5, 0.42), p.about(0.75, 0.12)
        green = (0.2, 0.45, 0.2)
        p.box(x - 0.02, foot - 0.24, x + 0.02, foot, green)
        p.box(x - 0.08, foot - 0.15, x + 0.07, foot - 0.12, green)
        p.box(x - 0.08, foot - 0.2, x - 0.05, foot - 0.12, green)
        p.box(x + 0.045, foot - 0.22, x + 0.075, foot - 0.12, green)


def _snow(p: Painting) -> None:
    horizon = p.about(0.38, 0.05)
    p.band(0, horizon, (0.68, 0.76, 0.86), (0.82, 0.87, 0.92))
    p.band(horizon, 1, (0.9, 0.93, 0.97), (0.98, 0.98, 1.0))
    for depth in np.sort(p.rng.random(4)):
        x, foot = p.rng.random(), horizon + 0.08 + 0.4 * depth
        tall = 0.26 + 0.12 * depth
        p.triangle(x, foot - tall, foot, 0.09, (0.25, 0.4, 0.42))
        p.triangle(x, foot - tall, foot - tall * 0.55, 0.042, (0.97, 0.98, 1.0))
    for x, y in p.rng.random((70, 2)):
        p.box(x, y, x + 0.014, y + 0.014, (1.0, 1.0, 1.0))


def _night(p: Painting) -> None:
    p.band(0, 1, (0.02, 0.03, 0.12), (0.06, 0.08, 0.24))
    for x, y in p.rng.random((45, 2)):
        p.box(x, y * 0.75, x + 0.01, y * 0.75 + 0.01, (0.95, 0.95, 0.8))
    x, y = p.about(0.5, 0.35), p.about(0.2, 0.06)
    p.disc(x, y, 0.1, (0.95, 0.93, 0.75))
    p.disc(x + 0.045, y - 0.02, 0.085, (0.03, 0.04, 0.14))
    ridge = np.float32(p.about(0.82, 0.04)) - np.float32(0.1) * p.wave(0.6, p.rng.random())
    p.fill(p.y > ridge, (0.01, 0.02, 0.03))


def _road(p: Painting) -> None:
    horizon = p.about(0.36, 0.04)
    p.band(0, horizon, (0.5, 0.72, 0.95), (0.8, 0.9, 0.98))
    p.band(horizon, 1, (0.36, 0.55, 0.25), (0.3, 0.5, 0.2))
    middle = p.about(0.5, 0.1)
    p.triangle(middle, horizon - 0.02, 1.02, 0.5, (0.3, 0.3, 0.32))
    for k in range(5):
        top = horizon + 0.04 + 0.13 * k
        wide = 0.006 + 0.006 * k
        p.box(middle - wide, top, middle + wide, top + 0.04 + 0.012 * k, (0.98, 0.98, 0.95))
    side = np.float32(0.46) * ((p.y - np.float32(horizon)) / np.float32(1 - horizon))
    off = np.abs(np.abs(p.x - np.float32(middle)) - side)
    p.fill((off < 0.012) & (p.y > horizon), (0.96, 0.9, 0.4))


def _room(p: Painting) -> None:
    floor = p.about(0.66, 0.05)
    wall = np.array((p.about(0.8, 0.08), p.about(0.72, 0.06), p.about(0.6, 0.06)))
    p.band(0, floor, wall)
    p.band(floor, 1, (0.55, 0.36, 0.2), (0.45, 0.28, 0.15))
    for y in np.linspace(floor + 0.07, 0.98, 4):
        p.box(0, y, 1, y + 0.008, (0.33, 0.2, 0.1))
    p.box(0, floor - 0.03, 1, floor, (0.95, 0.94, 0.9))
    left, top = p.about(0.22, 0.12), p.about(0.16, 0.05)
    p.box(left, top, left + 0.3, top + 0.32, (0.97, 0.96, 0.92))
    for dx in (0.025, 0.16):
        for dy in (0.025, 0.17):
            x, y = left + dx, top + dy
            p.box(x, y, x + 0.115, y + 0.125, (0.55, 0.78, 0.95))
    door = left + p.about(0.47, 0.04)
    p.box(door, floor - 0.45, door + 0.2, floor, (0.5, 0.28, 0.14))
    p.disc(door + 0.17, floor - 0.22, 0.014, (0.95, 0.85, 0.3))


def _field(p: Painting) -> None:
    horizon = p.about(0.38, 0.05)
    p.band(0, horizon, (0.4, 0.68, 0.96), (0.78, 0.9, 0.98))
    p.band(horizon, 1, (0.55, 0.75, 0.25), (0.42, 0.66, 0.18))
    # Furrows that run towards a point on the horizon.
    depth = (p.y - np.float32(horizon - 0.05)) / np.float32(1.05 - horizon)
    t = (p.x - np.float32(p.about(0.5, 0.2))) / np.maximum(depth, np.float32(0.04)) * 6
    p.fill((t - np.floor(t) < 0.4) & (p.y > horizon), (0.85, 0.78, 0.28))


def _sea(p: Painting) -> None:
    horizon = p.about(0.2, 0.05)
    p.band(0, horizon, (0.6, 0.8, 0.95), (0.85, 0.93, 0.97))
    p.band(horizon, 1, (0.05, 0.3, 0.6), (0.03, 0.22, 0.5))
    for y in np.linspace(horizon + 0.08, 0.95, 7):
        line = np.float32(y) + np.float32(0.03) * p.wave(0.22, p.rng.random())
        p.fill(np.abs(p.y - line) < 0.009, (0.55, 0.8, 0.92))
    x = p.about(0.5, 0.35)
    p.triangle(x, horizon - 0.12, horizon + 0.03, 0.055, (0.98, 0.98, 0.96))
    p.box(x - 0.075, horizon + 0.035, x + 0.075, horizon + 0.065, (0.5, 0.2, 0.1))


PAINTERS = {
    "forest": _forest,
    "beach": _beach,
    "city": _city,
    "desert": _desert,
    "snow": _snow,
    "night": _night,
    "road": _road,
    "room": _room,
    "field": _field,
    "sea": _sea,
}


def _rain(p: Painting) -> None:
    p.pixels *= np.float32(0.6)
    p.pixels += np.array((0.1, 0.12, 0.16), dtype=np.float32)
    # Slanted streaks, each a few pixels wide.
    for x, y in p.rng.random((60, 2)):
        along = (p.y - np.float32(y)) / np.float32(0.11)
        off = np.abs(p.x - np.float32(x) + along * np.float32(0.04))
        thin = np.float32(max(0.006, 0.55 / p.size))
        p.fill((off < thin) & (along >= 0) & (along <= 1), (0.72, 0.8, 0.9))


def _fog(p: Painting) -> None:
    p.pixels *= np.float32(0.34)
    p.pixels += np.float32(0.53)


def paint(rng: np.random.Generator, size: int, place: str, weather: str = "clear") -> np.ndarray:
    """float32 (size, size, 3) in 0..1."""
    painting = Painting(rng, size)
    PAINTERS[place](painting)
    if weather == "rain":
        _rain(painting)
    elif weather == "fog":
        _fog(painting)
    return painting.pixels.clip(0, 1)
