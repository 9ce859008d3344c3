"""Generated text between two markers of a hand-written page."""

from __future__ import annotations


def insert(text: str, name: str, body: str) -> str:
    """The page with `body` between its markers for `name`; a page without them as it is."""
    begin, end = f"<!-- {name}: make docs -->", f"<!-- end of {name} -->"
    if begin not in text:
        return text
    head, rest = text.split(begin)
    return f"{head}{begin}\n{body}\n{end}{rest.split(end)[1]}"
