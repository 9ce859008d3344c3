"""What several law files share: the cases, the methods, and what a method does to a sample."""

from __future__ import annotations

import pytest

from . import zoo
from .halves import Half, HalfAt
from .reference import Drop, every_second

once = pytest.mark.parametrize(("name", "modality"), zoo.CASES)
stages = pytest.mark.parametrize("method", [Half(), Half(positions="packed"), HalfAt(k=2)], ids=str)


def dropped(sample: zoo.Sample, method) -> Drop:
    """What a test method does to a sample."""
    if isinstance(method, HalfAt):
        return Drop(every_second(sample, per_item=False), k=method.k)
    return Drop(every_second(sample), packed=method.positions == "packed")
