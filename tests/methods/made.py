"""Methods as the test matrix makes them: trained ones with seeded, untrained parts."""

from __future__ import annotations

from typing import Any

from foveate.method import Method, create, method_class
from foveate.trained import TrainedMethod

# What a method needs besides to reach the budgets of the tests on decoders of five layers.
EXTRA: dict[str, dict[str, Any]] = {"videollm_mod": {"placement": "all"}}


def made(slug: str, **parameters: Any) -> Method:
    """A registered method that runs on any model, however small and random."""
    parameters = {**EXTRA.get(slug, {}), **parameters}
    if issubclass(method_class(slug), TrainedMethod):
        parameters = {"weights": "random", **parameters}
    return create(slug, **parameters)


def halved(slug: str) -> Method:
    """A registered method that keeps half of the tokens, where it drops any."""
    return made(slug, **({"keep": 0.5} if method_class(slug).reduces else {}))
