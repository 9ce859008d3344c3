"""Plain sheets for charts and documents: light or dark, with ink that can be read on them."""

import numpy as np

from .palette import apart, unit
from .scene import Background
from .vocabulary import COLOURS


def sheet(rng: np.random.Generator) -> Background:
    """A flat light sheet, or one time in four a dark one."""
    base = rng.uniform(0.08, 0.16) if rng.random() < 0.25 else rng.uniform(0.9, 0.97)
    tone = tuple((base + rng.uniform(-0.02, 0.02, 3)).clip(0, 1).tolist())
    return Background("flat", tone, tone)


def shade(ground: Background, by: float) -> tuple[float, float, float]:
    """The sheet's colour moved towards the middle, for lines."""
    step = by if sum(ground.first) < 1.5 else -by
    r, g, b = ground.first
    return r + step, g + step, b + step


def paints(rng: np.random.Generator, ground: Background, count: int) -> list[str]:
    """Different colours that stand out from the sheet."""
    fit = [c for c in COLOURS if apart(unit(c), ground.first) >= 0.4]
    return [fit[i] for i in rng.permutation(len(fit))[:count]]
