"""Random numbers of the world, and what the splits must not share.

The name of an image (world version, split, task, index) alone determines its content, independent
of global generators, workers and the order of calls.
"""

import hashlib

import numpy as np

from foveate.errors import FoveateError, shown

from .vocabulary import COLOURS, LEXICON, NONSENSE, SHAPES

WORLD_VERSION = "w1"

# "test-ood" has other content than "test"; the other splits differ only in their random numbers.
SPLITS = ("train", "val", "test", "test-ood")
SPLIT_SIZES = {"train": None, "val": 200, "test": 1000, "test-ood": 500}


class WorldError(FoveateError):
    """A call to the world has an invalid argument."""


def generator(split: str, task: str, index: int, purpose: str = "scene") -> np.random.Generator:
    """The random numbers of one image; each ``purpose`` has an independent stream."""
    if not isinstance(split, str) or split not in SPLITS:
        raise WorldError(f"split={shown(split)} is unknown: use one of {', '.join(SPLITS)}.")
    name = f"{WORLD_VERSION}/{split}/{task}/{index}/{purpose}"
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _held_out(shape: int, colour: int) -> bool:
    return (5 * shape + 3 * colour) % 13 < 2


PAIRS = tuple((s, c) for s in SHAPES for c in COLOURS)
HELD_OUT_PAIRS = frozenset(
    (shape, colour)
    for i, shape in enumerate(SHAPES)
    for j, colour in enumerate(COLOURS)
    if _held_out(i, j)
)
HELD_OUT_WORDS = LEXICON[3::8]
HELD_OUT_NONSENSE = NONSENSE[3::6]


def pairs(split: str) -> tuple[tuple[str, str], ...]:
    """(shape, colour) pairs that a split can draw."""
    return PAIRS if split == "test-ood" else _SEEN_PAIRS


def lexicon(split: str) -> tuple[str, ...]:
    """Words that a split can write; in test-ood only the held-out ones."""
    return HELD_OUT_WORDS if split == "test-ood" else _SEEN_WORDS


def nonsense(split: str) -> tuple[str, ...]:
    """Nonsense words that a split can define; in test-ood only the held-out ones."""
    return HELD_OUT_NONSENSE if split == "test-ood" else _SEEN_NONSENSE


_SEEN_PAIRS = tuple(pair for pair in PAIRS if pair not in HELD_OUT_PAIRS)
_SEEN_WORDS = tuple(word for word in LEXICON if word not in HELD_OUT_WORDS)
_SEEN_NONSENSE = tuple(word for word in NONSENSE if word not in HELD_OUT_NONSENSE)
