"""Contact sheets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from foveate.errors import InvalidParameter
from foveate.view import side_by_side


def test_pictures_keep_their_shape_at_equal_height():
    red, blue = Image.new("RGB", (60, 30), "red"), Image.new("RGB", (100, 200), "blue")
    sheet = np.asarray(side_by_side([red, blue], ["a", "b"], height=100))
    assert (sheet == (255, 0, 0)).all(2).sum() == 200 * 100
    assert (sheet == (0, 0, 255)).all(2).sum() == 50 * 100


def test_columns_make_rows():
    pictures = [Image.new("RGB", (50, 50), "red")] * 5
    wide = side_by_side(pictures, ["x"] * 5)
    tall = side_by_side(pictures, ["x"] * 5, columns=2)
    assert wide.width > wide.height and tall.height > tall.width


def test_captions_wrap_to_the_picture():
    picture = Image.new("RGB", (120, 120))
    short = side_by_side([picture], ["one"])
    long = side_by_side([picture], ["a caption with many more words than fit on one line"])
    assert long.width == short.width and long.height > short.height


def test_captions_are_drawn():
    picture = Image.new("RGB", (120, 120), "white")
    blank = np.asarray(side_by_side([picture], [""]), int)
    text = np.asarray(side_by_side([picture], ["25 %"]), int)
    assert np.abs(blank - text).sum() > 1000


@pytest.mark.parametrize(("images", "captions"), [([], []), ([Image.new("RGB", (2, 2))], [])])
def test_counts_must_agree(images, captions):
    with pytest.raises(InvalidParameter, match="one caption"):
        side_by_side(images, captions)
