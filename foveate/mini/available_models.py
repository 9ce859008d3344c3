"""The embedded models whose weights are in this installation, and the roles that they play."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"

# The best embedded model for each role.
ROLES = {"image": "mini-image", "clip": "nano-text"}


def available() -> list[str]:
    """Names of the embedded models whose weights are in this installation."""
    return sorted(p.parent.name for p in WEIGHTS.glob("*/model.safetensors"))
