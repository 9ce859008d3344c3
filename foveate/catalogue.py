"""`catalog()`: every system that foveate knows of, those still planned included."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import MISSING, asdict, fields
from functools import cache
from importlib.resources import files
from typing import Any

from foveate.errors import UnknownName
from foveate.family_support import supported_families
from foveate.method import registered
from foveate.parameter_docs import parameter_docs
from foveate.systems import MethodInfo, systems


def catalog() -> list[MethodInfo]:
    """All systems by slug, and the baselines; `status` is "available" or "planned"."""
    methods = registered()
    known = {slug: row.info(available=slug in methods) for slug, row in systems().items()}
    for slug, cls in methods.items():
        if slug not in known:
            known[slug] = MethodInfo(
                slug=slug,
                name=cls.__name__,
                title=_about(cls).split("\n")[0],
                year=None,
                paper=cls.paper,
                stages=cls().stages,
                trained=cls.trained,
                seed=None,
                status="available",
            )
    return [known[slug] for slug in sorted(known)]


def describe(slug: str) -> dict[str, Any]:
    """What the catalogue knows of a system, and what its class says, as plain values.

    A planned system has no class: then there are no parameters, needs or text.
    """
    listed = {info.slug: info for info in catalog()}
    if slug not in listed:
        raise UnknownName.of("method", slug, listed)
    described = asdict(listed[slug])
    cls = registered().get(slug)
    if cls is None:
        return described
    docs = parameter_docs(cls)
    method = cls()
    needs = dict.fromkeys(repr(need) for part in method.parts() for need in part.needs)
    return {
        **described,
        "class": cls.__name__,
        "stages": list(method.stages),
        "paper": described["paper"] or cls.paper,
        "trained": cls.trained,
        "prompt_agnostic": cls.prompt_agnostic,
        "needs": list(needs),
        "families": supported_families(slug) if cls.__module__.startswith("foveate.") else "",
        "bench": measured().get(slug, {}),
        "parameters": [
            {
                "name": field.name,
                "default": None if field.default is MISSING else field.default,
                "doc": docs.get(field.name, ""),
            }
            for field in fields(cls)
        ],
        "about": _about(cls),
    }


@cache
def measured() -> dict[str, dict[str, dict[str, float]]]:
    """Retained skill of the shipped bench runs: by slug, embedded model and share of tokens."""
    text = (files("foveate") / "measured.json").read_text(encoding="utf-8")
    return json.loads(text)


def _about(cls: type) -> str:
    return inspect.cleandoc(sys.modules[cls.__module__].__doc__ or cls.__doc__ or "")
