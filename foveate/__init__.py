"""foveate: any vision-language model, made cheaper by deciding what it looks at.

import foveate
with foveate.attach(model, foveate.DivPrune(keep=64)) as att:
    model.generate(**inputs)
att.report
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "attach": "foveate.engine.attachment",
    "Attachment": "foveate.engine.attachment",
    "catalog": "foveate.catalogue",
    "create": "foveate.method",
    "from_dict": "foveate.method",
    "from_pretrained": "foveate.trained",
    "load_processor": "foveate.processors",
    "register": "foveate.method",
    "Method": "foveate.method",
    "TrainedMethod": "foveate.trained",
    "MethodInfo": "foveate.systems",
    "Report": "foveate.report",
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

        for known, cls in class_names():
            if known == name:
                return cls
    raise AttributeError(f"module 'foveate' has no attribute {name!r}")


def __dir__() -> list[str]:
    from foveate.method import class_names

    return sorted({*globals(), *_HOMES, *(name for name, _ in class_names())})
