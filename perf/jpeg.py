"""Time to decode a JPEG, for comparison with the model's stages."""

from __future__ import annotations

from foveate.assets import PHOTOGRAPH
from foveate.media import load_image
from perf.timing import interleaved, seconds


def decode(rounds: int) -> dict:
    """Median seconds to decode the photograph that ships with the package."""
    width, height = load_image(PHOTOGRAPH).size
    taken = interleaved({"jpeg": lambda: seconds(lambda: load_image(PHOTOGRAPH))}, rounds)
    return {"size": f"{width} x {height}", "seconds": taken["jpeg"]}
