"""foveate: fewer visual tokens for any vision-language model.

import foveate
with foveate.attach(model, foveate.DivPrune(keep=64)) as att:
    model.generate(**inputs)
att.report
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "attach": "foveate.engine.attachment",
    "Attachment": "foveate.engine.attachment",
    "catalog": "foveate.catalogue",
    "compare": "foveate.comparison",
    "Comparison": "foveate.comparison",
    "create": "foveate.method",
    "from_dict": "foveate.method",
    "from_pretrained": "foveate.trained",
    "load_processor": "foveate.processors",
    "register": "foveate.method",
    "Method": "foveate.method",
    "TrainedMethod": "foveate.trained",
    "MethodInfo": "foveate.systems",
    "Report": "foveate.report",
    "Totals": "foveate.totals",
    "FoveateError": "foveate.errors",
    "MissingWeights": "foveate.errors",
    "UnsupportedCall": "foveate.errors",
    "UnsupportedModel": "foveate.errors",
    "BudgetError": "foveate.errors",
    "mini": "foveate.mini",
    "tune": "foveate.tuning",
    "from_plan": "foveate.tuning",
    "zero_shot": "foveate.classifier",
}


def __getattr__(name: str) -> Any:
    """Public names load on first use, so that `import foveate` stays light."""
    if name == "mini":
        return importlib.import_module("foveate.mini")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name[:1].isupper():
        from foveate.method import class_names

        classes = dict(class_names())
        if name in classes:
            return classes[name]
        raise AttributeError(_missing_class(name, classes))
    raise AttributeError(f"module 'foveate' has no attribute {name!r}")


def _missing_class(name: str, classes: Iterable[str]) -> str:
    """What an `AttributeError` says of a class name: the nearest one, or that it is planned."""
    from foveate.errors import UnknownName
    from foveate.method import registered
    from foveate.systems import systems

    plain = _letters(name)
    for row in systems().values():
        if row.slug not in registered() and plain in (_letters(row.slug), _letters(row.name)):
            return f"foveate.{name} ({row.paper}) is planned, not available yet."
    return str(UnknownName.of("name in foveate", name, classes))


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


def __dir__() -> list[str]:
    from foveate.method import class_names

    return sorted({*globals(), *_HOMES, *(name for name, _ in class_names())})
