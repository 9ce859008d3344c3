"""Whether a method ranks tokens by scores that a heat map can show, without running it."""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType
from typing import Any


def ranks_tokens(method: Any) -> bool:
    """Whether a part of the method has code that records scores (`signals.record(scores)`).

    False is certain. True leaves open whether a call reaches that code.
    """
    classes = {cls for part in method.parts() for cls in type(part).__mro__}
    return any("record" in code.co_names for cls in classes for code in _codes(cls))


def _codes(cls: type) -> Iterator[CodeType]:
    """The code of all functions of a class, nested functions included."""
    members = [getattr(member, "__func__", member) for member in vars(cls).values()]
    found = [m.__code__ for m in members if hasattr(m, "__code__")]
    while found:
        code = found.pop()
        yield code
        found += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
