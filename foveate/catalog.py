"""`catalog()`: every system that foveate knows of, those still planned included."""

from __future__ import annotations

from foveate.method import registered
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
                title=_first_line(cls),
                year=None,
                paper=cls.paper,
                stages=cls().stages,
                trained=cls.trained,
                seed=None,
                status="available",
            )
    return [known[slug] for slug in sorted(known)]


def _first_line(cls: type) -> str:
    import sys

    return (sys.modules[cls.__module__].__doc__ or "").strip().split("\n")[0]
