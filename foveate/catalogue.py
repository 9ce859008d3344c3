"""`catalog()`: every system that foveate lists, planned ones included."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, fields
from functools import cache
from importlib.resources import files
from typing import Any

from foveate.errors import UnknownName
from foveate.family_support import supported_families
from foveate.method import Method, registered
from foveate.method_docs import about, method_doc
from foveate.parameter_docs import parameter_docs
from foveate.systems import MethodInfo, systems


def catalog() -> list[MethodInfo]:
    """All systems by slug, baselines included. `status` is "available" or "planned"."""
    methods = registered()
    known = {slug: row.info(available=slug in methods) for slug, row in systems().items()}
    for slug, cls in methods.items():
        if slug not in known:
            known[slug] = MethodInfo(
                slug=slug,
                name=cls.__name__,
                title=method_doc(cls).summary,
                year=None,
                paper=cls.paper,
                stages=cls().stages,
                trained=cls.trained,
                seed=None,
                status="available",
            )
    return [known[slug] for slug in sorted(known)]


def describe(slug: str) -> dict[str, Any]:
    """The catalogue entry of a system and the facts of its class, as plain values.

    A planned system has no class, so it has no parameters, signals or documentation.
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
        "selection": _selection(cls),
        "keep_means": cls.keep_means if cls.reduces else "always 1.0: no token is dropped",
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
        "summary": method_doc(cls).summary,
        "about": about(cls),
    }


def _selection(cls: type[Method]) -> str:
    """Whether the prompt changes which tokens are kept, in words."""
    if cls.prompt_agnostic:
        return "yes: independent of the question"
    if cls.text_before_image_only:
        return "no: a question before the image changes the selection, one after it does not"
    return "no: the question changes the selection"


@cache
def measured() -> dict[str, dict[str, dict[str, float]]]:
    """Normalised accuracy in the shipped bench runs: by slug, embedded model and keep."""
    text = (files("foveate") / "measured.json").read_text(encoding="utf-8")
    return json.loads(text)
