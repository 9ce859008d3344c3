"""The documentation of each parameter of a method, read from `Attributes:` blocks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields

_ENTRY = re.compile(r"    (\w+): (.*)")


def parameter_docs(cls: type) -> dict[str, str]:
    """Parameter name to its text, inherited parameters included; a subclass overrides its bases."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        docs |= _entries(inspect.cleandoc(base.__dict__.get("__doc__") or ""))
    # A block may document class attributes too; those are no parameters.
    return {field.name: docs[field.name] for field in fields(cls) if field.name in docs}


def _entries(text: str) -> dict[str, str]:
    """The entries `name: text` of the `Attributes:` block; deeper lines continue an entry."""
    found: dict[str, str] = {}
    name = ""
    for line in _block(text):
        if entry := _ENTRY.fullmatch(line):
            name, found[name] = entry[1], entry[2]
        elif name:
            found[name] += " " + line.strip()
    return found


def _block(text: str) -> Iterator[str]:
    inside = False
    for line in text.split("\n"):
        if inside and not line.startswith("    "):
            return
        if inside:
            yield line
        inside = inside or line == "Attributes:"
