"""What the docstrings of a method say about each of its parameters."""

from __future__ import annotations

import inspect
import re

_ENTRY = re.compile(r"(?:^|(?<=[.;] ))((?:\w+, )*\w+): ")


def parameter_docs(cls: type) -> dict[str, str]:
    """Parameter name to its sentence: entries "name: text" in the docstrings of a class's line.

    A subclass overrides its bases; "a, b: text" documents both.
    """
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        text = base.__dict__.get("__doc__")
        if text and hasattr(base, "__dataclass_fields__"):
            docs |= _entries(inspect.cleandoc(text))
    return {name: text for name, text in docs.items() if name in cls.__dataclass_fields__}


def _entries(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for paragraph in text.split("\n\n"):
        line = " ".join(paragraph.strip().removeprefix("Attributes:").split())
        starts = list(_ENTRY.finditer(line))
        ends = [following.start() for following in starts[1:]] + [len(line)]
        for start, end in zip(starts, ends, strict=False):
            for name in start[1].split(", "):
                found[name] = line[start.end() : end].strip()
    return found
