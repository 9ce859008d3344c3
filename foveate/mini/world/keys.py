"""Where the randomness of the world comes from, and what the splits may not share.

Every picture has a name (world version, split, task, index) and nothing else decides what is on it:
no global generator, no worker id, no order of calls.
"""

import hashlib

import numpy as np

from foveate.errors import FoveateError, shown

from .vocabulary import COLOURS, LEXICON, NONSENSE, SHAPES

WORLD_VERSION = "w1"

# "test-ood" differs from "test" in what it draws; the others differ in their keys alone.
SPLITS = ("train", "val", "test", "test-ood")
SPLIT_SIZES = {"train": None, "val": 200, "test": 1000, "test-ood": 500}


class WorldError(FoveateError):
    """Something was asked of the world that it does not have."""


def generator(split: str, task: str, index: int, purpose: str = "scene") -> np.random.Generator:
    """The random stream of one picture; ``purpose`` gives independent streams for one picture."""
    if not isinstance(split, str) or split not in SPLITS:
        raise WorldError(f"unknown split {shown(split)}: use one of {', '.join(SPLITS)}.")
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
    """(shape, colour) pairs that a split may draw."""
    return PAIRS if split == "test-ood" else _SEEN_PAIRS


def lexicon(split: str) -> tuple[str, ...]:
    """Words that a split may write: the held-out ones alone in test-ood."""
    return HELD_OUT_WORDS if split == "test-ood" else _SEEN_WORDS


def nonsense(split: str) -> tuple[str, ...]:
    """Meaningless words that a split may give a meaning: the held-out ones alone in test-ood."""
    return HELD_OUT_NONSENSE if split == "test-ood" else _SEEN_NONSENSE


_SEEN_PAIRS = tuple(pair for pair in PAIRS if pair not in HELD_OUT_PAIRS)
_SEEN_WORDS = tuple(word for word in LEXICON if word not in HELD_OUT_WORDS)
_SEEN_NONSENSE = tuple(word for word in NONSENSE if word not in HELD_OUT_NONSENSE)
