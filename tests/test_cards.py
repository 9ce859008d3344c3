"""The README.md of every set of shipped weights is written from its card.json."""

import json
from pathlib import Path

import pytest

from foveate.mini import WEIGHTS, card, clip_card
from foveate.training.card import markdown

ROOT = Path(__file__).parents[1] / "foveate"
LEARNED = ROOT / "methods/weights"
CARDS = [*sorted(WEIGHTS.glob("*/card.json")), *sorted(LEARNED.glob("*/*/card.json"))]


@pytest.mark.parametrize("path", CARDS, ids=lambda p: str(p.parent.relative_to(ROOT)))
def test_the_readme_is_what_the_card_renders_to(path):
    facts = json.loads(path.read_text())
    render = markdown if path.is_relative_to(LEARNED) else card.markdown
    if "vision" in facts:
        render = clip_card.page
    assert path.with_name("README.md").read_text() == render(facts)
