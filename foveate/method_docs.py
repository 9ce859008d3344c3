"""The docstring of a method's file in parts: one-liner, citation, labelled sections, example."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import dataclass

LABELS = ("Rule", "Needs", "Cost", "Differences", "Notes")
_LABEL = re.compile(rf"({'|'.join(LABELS)}): ")
_EXAMPLE = "\n\n    model, processor"


@dataclass(frozen=True)
class MethodDoc:
    """What the docstring of a method's file says.

    Attributes:
        summary: the first line, one sentence on what the method does and where.
        intro: the paragraphs before the first label, such as the citation.
        sections: label ("Rule", "Needs", "Cost", "Differences", "Notes") to its paragraphs.
        example: the code at the end, not indented.
    """

    summary: str
    intro: str
    sections: dict[str, str]
    example: str


def about(cls: type) -> str:
    """The docstring of the file that defines a method, or of the class where that has none."""
    return inspect.cleandoc(sys.modules[cls.__module__].__doc__ or cls.__doc__ or "")


def method_doc(cls: type) -> MethodDoc:
    """The parts of a method's documentation."""
    summary, _, rest = about(cls).partition("\n")
    prose, mark, example = rest.strip().partition(_EXAMPLE)
    intro: list[str] = []
    sections: dict[str, list[str]] = {}
    current = intro
    for paragraph in prose.split("\n\n"):
        if label := _LABEL.match(paragraph):
            current = sections.setdefault(label[1], [])
            paragraph = paragraph[label.end() :]
        current.append(paragraph)
    code = re.sub(r"^    ", "", mark.lstrip("\n") + example, flags=re.M)
    joined = {label: "\n\n".join(paragraphs) for label, paragraphs in sections.items()}
    return MethodDoc(summary, "\n\n".join(intro), joined, code)
