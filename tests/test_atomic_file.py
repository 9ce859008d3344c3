"""A file that is written in place of another one is complete, or the other one stays."""

import pytest

from foveate.atomic_file import replacing


def test_the_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"] and path.read_text() == "new"


def test_an_interruption_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
