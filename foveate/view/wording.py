"""Words of captions and titles: names of methods, their budget, percentages."""

from __future__ import annotations

import re
from dataclasses import fields

from foveate.method import Method, registered


def percent(ratio: float) -> str:
    """A ratio in percent, with one digit after the point."""
    return f"{100 * ratio:.1f} %"


def method_name(slug: str) -> str:
    """The name of a method, which is that of its class; the slug of one that is not registered."""
    cls = registered().get(slug)
    return slug if cls is None else cls.__name__


def with_keep(method: str) -> str:
    """A method as `repr` shows it, with its `keep` also where that is the default."""
    classes = {cls.__name__: cls for cls in registered().values()}
    return " + ".join(_with_keep(part, classes) for part in method.split(" + "))


def _with_keep(method: str, classes: dict[str, type[Method]]) -> str:
    found = re.fullmatch(r"(\w+)\((.*)\)", method, re.DOTALL)
    cls = classes.get(found[1]) if found else None
    if found is None or cls is None or not cls.reduces or re.search(r"\bkeep=", found[2]):
        return method
    keep = next(f.default for f in fields(cls) if f.name == "keep")
    return f"{found[1]}({', '.join(filter(None, (f'keep={keep!r}', found[2])))})"
