"""The closed word list of the world, read from ``vocabulary.json``.

Every question and answer is written with these words, so a model of two million parameters can know
all of them. The list is padded with unused words to `VOCABULARY_SIZE`, a multiple of 64.
"""

import json
from functools import cache
from importlib.resources import files

VOCABULARY_SIZE = 512


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Word groups by name, in the order in which the ids are given out."""
    text = (files(__package__) / "vocabulary.json").read_text(encoding="utf-8")
    return {name: tuple(words) for name, words in json.loads(text).items()}


@cache
def words() -> tuple[str, ...]:
    """All words; the index of a word is its token id."""
    listed = [word for group in groups().values() for word in group]
    free = VOCABULARY_SIZE - len(listed)
    return (*listed, *(f"<unused{i}>" for i in range(free)))


@cache
def ids() -> dict[str, int]:
    """Token id of every word."""
    return {word: index for index, word in enumerate(words())}


COLOURS = groups()["colours"]
SHAPES = groups()["shapes"]
TEXTURES = groups()["textures"]
SIZES = groups()["sizes"]
REGIONS = groups()["regions"]
LEXICON = groups()["lexicon"]
NONSENSE = groups()["nonsense"]
