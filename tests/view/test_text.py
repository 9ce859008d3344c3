"""Text on pictures in scripts that the font of Pillow lacks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from foveate.view import Head, side_by_side, text
from foveate.view.text import drawable, font

NOTE = "(text not drawable with this font)"


@pytest.fixture
def pillow_only(monkeypatch):
    monkeypatch.setattr(text, "_files", lambda: [None])


def test_undrawable_text_becomes_a_note(pillow_only):
    assert drawable("Answer: \u732b, \u72ac.") == f"Answer: {NOTE}"
    assert drawable("\u732b and \u72ac") == f"{NOTE} and {NOTE}"
    assert drawable("plain, caf\u00e9") == "plain, cafe"


def test_a_sheet_has_the_note_and_no_boxes(pillow_only):
    def sheet(question: str) -> np.ndarray:
        head = Head("title", [question])
        return np.asarray(side_by_side([Image.new("RGB", (500, 50))], ["x"], head=head))

    assert np.array_equal(sheet("\u732b\u72ac"), sheet(NOTE))


@pytest.mark.parametrize("words", ["\u043a\u043e\u0448\u043a\u0430", "\u03b3\u03ac\u03c4\u03b1"])
def test_a_font_of_the_system_is_used_where_it_has_the_letters(words):
    assert drawable(words) == words
    assert font(16, words).getname()[0] == "DejaVu Sans"
    assert font(16, "latin").getname() == font(16).getname()
