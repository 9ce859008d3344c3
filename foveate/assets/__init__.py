"""A picture that the package brings along, so that a first try needs no file and no network."""

from __future__ import annotations

from pathlib import Path

PHOTOGRAPH = Path(__file__).parent / "coffee.jpg"
"""A cup of coffee on a table, 600 x 400; where it comes from stands in README.md beside it."""
